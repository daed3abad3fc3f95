#include "isa/isa_avx512.hpp"
// the vectors come first: scan.hpp is written over them
#include "isa/scan.hpp"

const rsir::Kernels& rsir::kernels_avx512() { return kKernels; }
