#include "isa/isa_base.hpp"
// the vectors come first: encode.hpp is written over them
#include "isa/encode.hpp"

const rsir::TrainingKernels& rsir::training_kernels_base() { return kTrainingKernels; }
