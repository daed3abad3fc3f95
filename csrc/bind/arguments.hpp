// Checked access to the arrays that Python hands over.
#pragma once

#include <pybind11/numpy.h>

#include <string>

#include "isa/dispatch.hpp"
#include "support/ieee.hpp"

namespace rsir {

namespace py = pybind11;

// What an op runs under: without Python's lock, and with plain arithmetic.
struct NativeCall {
  const py::gil_scoped_release release;
  const Ieee arithmetic;
};

inline const Unit& unit_named(const std::string& name) {
  if (const Unit* unit = find_unit(name)) return *unit;
  std::string choices;
  for (const Unit* unit : available_units()) choices += std::string(choices.empty() ? "" : ", ") + unit->name;
  throw py::value_error("instruction_set: this machine offers " + choices + "; got '" + name + "'");
}

// The data of a C-contiguous, aligned array of that very dtype.
template <class T>
const T* data_of(const char* name, const py::array& value, int ndim) {
  const std::string what = name;
  if (value.ndim() != ndim)
    throw py::value_error(what + ": expected " + std::to_string(ndim) + " dimensions, got " +
                          std::to_string(value.ndim()));
  if (!py::isinstance<py::array_t<T>>(value))
    throw py::value_error(what + ": expected dtype " + py::str(py::dtype::of<T>()).cast<std::string>() + ", got " +
                          py::str(value.dtype()).cast<std::string>());
  const int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((value.flags() & needed) != needed)
    throw py::value_error(what + ": expected a C-contiguous, aligned array; pass numpy.ascontiguousarray(...)");
  return static_cast<const T*>(value.data());
}

}  // namespace rsir
