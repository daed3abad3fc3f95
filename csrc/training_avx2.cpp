#include "isa_avx2.hpp"
// the vectors come first: layer.hpp is written over them
#include "layer.hpp"

const rsir::TrainingKernels& rsir::training_kernels_avx2() { return kTrainingKernels; }
