#include "isa/isa_avx2.hpp"
// the vectors come first: scan.hpp is written over them
#include "isa/scan.hpp"

const rsir::Kernels& rsir::kernels_avx2() { return kKernels; }
