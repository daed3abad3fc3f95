#include "isa_avx512.hpp"
// the vectors come first: layer.hpp is written over them
#include "layer.hpp"

const rsir::TrainingKernels& rsir::training_kernels_avx512() { return kTrainingKernels; }
