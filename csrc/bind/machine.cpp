// What this machine offers and can do.
#include "bind/arguments.hpp"
#include "bind/module.hpp"
#include "support/measure.hpp"

namespace rsir::bind {

void register_machine(py::module_& m) {
  using namespace py::literals;
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Unit* unit : available_units()) names.emplace_back(unit->name);
    return names;
  }, "Instruction sets usable here, best first.");
  m.def("measure_fma", [](const Unit& unit, Threads threads, double seconds) {
    return run_native([&] { return rsir::measure_fma(unit.burn, threads, seconds); });
  }, "instruction_set"_a, "threads"_a, "seconds"_a,
        "Multiply-adds in registers: floating point operations per second of running, summed over threads.");
  m.def("measure_read", [](Threads threads, std::int64_t bytes) {
    if (bytes < 8) throw py::value_error("bytes: expected at least 8, got " + std::to_string(bytes));
    return run_native([&] { return rsir::measure_read(threads, bytes); });
  }, "threads"_a, "bytes"_a, "Bytes a second that the threads read, each from a buffer of its own.");
}

}  // namespace rsir::bind
