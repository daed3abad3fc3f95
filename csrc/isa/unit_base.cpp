#include "isa/isa_base.hpp"
// the vectors come first: scan.hpp is written over them
#include "isa/scan.hpp"

const rsir::Kernels& rsir::kernels_base() { return kKernels; }
