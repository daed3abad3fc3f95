#include "isa_base.hpp"
// the vectors come first: encode.hpp is written over them
#include "encode.hpp"

const rsir::TrainingKernels& rsir::training_kernels_base() { return kTrainingKernels; }
