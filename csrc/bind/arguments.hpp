// What Python hands over, checked: arrays of the very type and shape, numbers of threads, instruction sets.
// The checks keep memory safe whatever comes in; rsir/ops says the same things to users earlier and in more words.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "isa/dispatch.hpp"
#include "support/ieee.hpp"

namespace rsir::bind {

namespace py = pybind11;

// A number of threads, at least 1.
struct Threads {
  int count = 1;
  operator int() const { return count; }
};

// Runs what needs no Python: without its lock, and with plain arithmetic.
template <class Run>
auto run_native(Run run) {
  const py::gil_scoped_release release;
  const Ieee arithmetic;
  return run();
}

using Shape = std::vector<py::ssize_t>;
constexpr py::ssize_t kAny = -1;  // a size that is not checked

inline std::string text_of(const Shape& shape) {  // as Python writes it
  std::string text;
  for (const py::ssize_t size : shape)
    text += (text.empty() ? "(" : ", ") + (size == kAny ? "any" : std::to_string(size));
  return text + (shape.size() == 1 ? ",)" : ")");
}

// The data of a C-contiguous, aligned array of that very dtype and shape.
template <class T>
const T* data_of(const std::string& name, const py::array& value, const Shape& shape) {
  if (value.ndim() != static_cast<py::ssize_t>(shape.size()))
    throw py::value_error(name + ": expected " + std::to_string(shape.size()) + " dimensions, got " +
                          std::to_string(value.ndim()));
  if (!py::isinstance<py::array_t<T>>(value))
    throw py::value_error(name + ": expected dtype " + py::str(py::dtype::of<T>()).cast<std::string>() + ", got " +
                          py::str(value.dtype()).cast<std::string>());
  const int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((value.flags() & needed) != needed)
    throw py::value_error(name + ": expected a C-contiguous, aligned array; pass numpy.ascontiguousarray(...)");
  const Shape got(value.shape(), value.shape() + value.ndim());
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != kAny && shape[i] != got[i])
      throw py::value_error(name + ": expected " + text_of(shape) + ", got " + text_of(got));
  return static_cast<const T*>(value.data());
}

template <class T>
const T* data_of(const std::string& name, const std::optional<py::array>& value, const Shape& shape) {
  return value ? data_of<T>(name, *value, shape) : nullptr;
}

// The same of an array that is written to.
template <class T>
T* writeable(const std::string& name, py::array& value, const Shape& shape) {
  data_of<T>(name, value, shape);
  return static_cast<T*>(value.mutable_data());  // refuses an array that is not writeable
}

template <class T>
T* writeable(const std::string& name, std::optional<py::array>& value, const Shape& shape) {
  return value ? writeable<T>(name, *value, shape) : nullptr;
}

// A new array for an op to fill.
template <class T>
struct Output {
  py::array_t<T> array;
  T* data;

  explicit Output(const Shape& shape) : array(shape), data(array.mutable_data()) {}
};

}  // namespace rsir::bind

namespace pybind11::detail {

template <>
struct type_caster<rsir::bind::Threads> {
  PYBIND11_TYPE_CASTER(rsir::bind::Threads, const_name("int"));

  bool load(handle source, bool convert) {
    make_caster<int> number;
    if (!number.load(source, convert)) return false;
    value.count = cast_op<int>(number);
    if (value.count < 1) throw value_error("threads: expected at least 1, got " + std::to_string(value.count));
    return true;
  }
};

// A unit is asked for by the name of its instruction set.
template <>
struct type_caster<rsir::Unit> {
  static constexpr auto name = const_name("str");
  template <class T>
  using cast_op_type = const rsir::Unit&;
  operator const rsir::Unit&() const { return *unit_; }

  bool load(handle source, bool convert) {
    make_caster<std::string> text;
    if (!text.load(source, convert)) return false;
    const std::string wanted = cast_op<std::string>(text);
    unit_ = rsir::find_unit(wanted);
    if (unit_) return true;
    std::string offered;
    for (const rsir::Unit* unit : rsir::available_units())
      offered += std::string(offered.empty() ? "" : ", ") + unit->name;
    throw value_error("instruction_set: this machine offers " + offered + "; got '" + wanted + "'");
  }

 private:
  const rsir::Unit* unit_ = nullptr;
};

}  // namespace pybind11::detail
