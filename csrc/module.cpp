// The compiled module rsir._core, whose types are in rsir/_core.pyi.
//
// An op is declared in catalogue/ops.hpp or a header of counting/, data/ or network/, which say what it computes, and bound in
// the file of the same name in bind/, which checks its arguments. What it needs of the instruction set is a function of
// isa/unit.hpp.
#include "bind/module.hpp"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled core of rsir: scoring, ranking and sampling over a packed catalogue.";
  rsir::bind::register_catalogue(m);
  rsir::bind::register_counting(m);
  rsir::bind::register_data(m);
  rsir::bind::register_network(m);
  rsir::bind::register_machine(m);
}
