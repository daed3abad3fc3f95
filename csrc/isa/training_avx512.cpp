#include "isa/isa_avx512.hpp"
// the vectors come first: encode.hpp is written over them
#include "isa/encode.hpp"

const rsir::TrainingKernels& rsir::training_kernels_avx512() { return kTrainingKernels; }
