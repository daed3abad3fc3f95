#include "isa_base.hpp"
// the vectors come first: layer.hpp is written over them
#include "layer.hpp"

const rsir::TrainingKernels& rsir::training_kernels_base() { return kTrainingKernels; }
