// The units that this machine can run.
#pragma once

#include <string>
#include <vector>

#include "isa/unit.hpp"

namespace rsir {

std::vector<const Unit*> available_units();  // best first

const Unit* find_unit(const std::string& name);  // null where the machine or the build does not offer it

}  // namespace rsir
