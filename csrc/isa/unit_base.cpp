#include "isa/isa_base.hpp"
// the vectors come first: the rest is written over them
#include "isa/implementation.hpp"

const rsir::Unit& rsir::unit_base() { return kUnit; }
