#include "isa_base.hpp"
// the vectors come first: scan.hpp is written over them
#include "scan.hpp"

const rsir::Kernels& rsir::kernels_base() { return kKernels; }
