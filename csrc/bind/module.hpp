// What module.cpp registers.
#pragma once

#include <pybind11/pybind11.h>

namespace rsir::bind {

void register_catalogue(pybind11::module_&);  // catalogue.cpp
void register_counting(pybind11::module_&);   // counting.cpp
void register_data(pybind11::module_&);       // data.cpp
void register_network(pybind11::module_&);    // network.cpp
void register_machine(pybind11::module_&);    // machine.cpp

}  // namespace rsir::bind
