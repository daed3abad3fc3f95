#include "isa/isa_avx512.hpp"
// the vectors come first: the rest is written over them
#include "isa/implementation.hpp"

const rsir::Unit& rsir::unit_avx512() { return kUnit; }
