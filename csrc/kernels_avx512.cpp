#include "isa_avx512.hpp"
// the vectors come first: scan.hpp is written over them
#include "scan.hpp"

const rsir::Kernels& rsir::kernels_avx512() { return kKernels; }
