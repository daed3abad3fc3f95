// Python's view of training: checks shapes and types, then releases the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "bind/arguments.hpp"
#include "network/adam.hpp"
#include "network/softmax.hpp"
#include "network/transformer.hpp"

namespace py = pybind11;

namespace {

using rsir::data_of;
using Optional = std::optional<py::array>;
using Floats = py::array_t<float>;

std::string text(const std::vector<py::ssize_t>& shape) {
  std::string out = "(";
  for (const py::ssize_t size : shape) out += std::to_string(size) + ", ";
  return out + ")";
}

template <class T>
const T* shaped(const char* name, const py::array& value, const std::vector<py::ssize_t>& shape) {
  const T* data = data_of<T>(name, value, static_cast<int>(shape.size()));
  const std::vector<py::ssize_t> got(value.shape(), value.shape() + value.ndim());
  if (got != shape) throw py::value_error(std::string(name) + ": expected " + text(shape) + ", got " + text(got));
  return data;
}

template <class T>
const T* optional(const char* name, const Optional& value, const std::vector<py::ssize_t>& shape) {
  return value ? shaped<T>(name, *value, shape) : nullptr;
}

void check_threads(int threads) {
  if (threads < 1) throw py::value_error("threads: expected at least 1, got " + std::to_string(threads));
}

py::tuple sampled_softmax(const py::array& queries, const py::array& positives, const py::array& negatives,
                          const py::array& targets, const py::array& negative_ids, const py::array& weights,
                          const Optional& target_offsets, const Optional& negative_offsets, int threads,
                          const std::string& instruction_set) {
  rsir::Softmax s = {};
  s.queries = data_of<float>("queries", queries, 2);
  s.negatives = data_of<float>("negatives", negatives, 2);
  s.positions = queries.shape(0), s.dim = queries.shape(1), s.columns = negatives.shape(0);
  s.positives = shaped<float>("positives", positives, {s.positions, s.dim});
  shaped<float>("negatives", negatives, {s.columns, s.dim});
  s.targets = shaped<std::int64_t>("targets", targets, {s.positions});
  s.negative_ids = shaped<std::int64_t>("negative_ids", negative_ids, {s.columns});
  s.weights = shaped<float>("weights", weights, {s.positions});
  s.target_offsets = optional<float>("target_offsets", target_offsets, {s.positions});
  s.negative_offsets = optional<float>("negative_offsets", negative_offsets, {s.columns});
  check_threads(threads);
  const rsir::Unit& unit = rsir::unit_named(instruction_set);
  Floats grad_queries({s.positions, s.dim}), grad_positives({s.positions, s.dim}), grad_negatives({s.columns, s.dim});
  const rsir::SoftmaxGradients gradients = {grad_queries.mutable_data(), grad_positives.mutable_data(),
                                            grad_negatives.mutable_data()};
  double loss;
  {
    const rsir::NativeCall native;
    loss = rsir::softmax(unit, s, threads, gradients);
  }
  return py::make_tuple(loss, grad_queries, grad_positives, grad_negatives);
}

py::tuple full_softmax(const py::array& queries, const py::array& items, const py::array& targets,
                       const py::array& weights, int threads, const std::string& instruction_set) {
  rsir::Softmax s = {};
  s.queries = data_of<float>("queries", queries, 2);
  s.positions = queries.shape(0), s.dim = queries.shape(1), s.columns = items.shape(0) - 1;
  const float* table = shaped<float>("items", items, {s.columns + 1, s.dim});
  if (s.columns < 1) throw py::value_error("items: expected at least two rows");
  s.negatives = table + s.dim;
  const std::int64_t* ids = shaped<std::int64_t>("targets", targets, {s.positions});
  s.weights = shaped<float>("weights", weights, {s.positions});
  std::vector<std::int64_t> columns(static_cast<std::size_t>(s.positions), 0);
  for (std::int64_t i = 0; i < s.positions; ++i) {
    if (s.weights[i] == 0.0f) continue;
    if (ids[i] < 1 || ids[i] > s.columns)
      throw py::value_error("targets: position " + std::to_string(i) + " holds id " + std::to_string(ids[i]) +
                            ", expected ids in 1.." + std::to_string(s.columns));
    columns[static_cast<std::size_t>(i)] = ids[i] - 1;
  }
  s.targets = columns.data();
  check_threads(threads);
  const rsir::Unit& unit = rsir::unit_named(instruction_set);
  Floats grad_queries({s.positions, s.dim}), grad_items({s.columns + 1, s.dim});
  float* grads = grad_items.mutable_data();
  std::fill_n(grads, s.dim, 0.0f);
  const rsir::SoftmaxGradients gradients = {grad_queries.mutable_data(), nullptr, grads + s.dim};
  double loss;
  {
    const rsir::NativeCall native;
    loss = rsir::softmax(unit, s, threads, gradients);
  }
  return py::make_tuple(loss, grad_queries, grad_items);
}

using Parameters = std::array<py::array, 12>;

rsir::LayerWeights weights_of(const Parameters& parameters, py::ssize_t d, py::ssize_t f) {
  const std::vector<py::ssize_t> shapes[12] = {{3 * d, d}, {3 * d}, {d, d}, {d}, {d}, {d},
                                               {f, d},     {f},     {d, f}, {d}, {d}, {d}};
  const float* data[12];
  for (std::size_t i = 0; i < 12; ++i)
    data[i] = shaped<float>(("parameter " + std::to_string(i)).c_str(), parameters[i], shapes[i]);
  return {data[0], data[1], data[2], data[3], data[4], data[5], data[6], data[7], data[8], data[9], data[10], data[11]};
}

void check_heads(std::int64_t heads, py::ssize_t d) {
  if (heads < 1 || d < 1 || d % heads != 0)
    throw py::value_error("heads: expected a divisor of " + std::to_string(d) + ", got " + std::to_string(heads));
}

// A layer's arguments, checked; the arrays must outlive it.
struct Layer {
  rsir::LayerShape shape = {};
  rsir::LayerWeights weights = {};
  rsir::LayerBatch batch = {};

  Layer(const py::array& x, const py::array& segments, const Parameters& parameters,
        const std::optional<std::array<py::array, 4>>& bytes, std::int64_t heads, int dropped, float epsilon) {
    batch.x = data_of<float>("x", x, 3);
    const py::ssize_t rows = x.shape(0), width = x.shape(1), d = x.shape(2);
    batch.segments = shaped<std::int64_t>("segments", segments, {rows, width});
    check_heads(heads, d);
    data_of<float>("up weight", parameters[6], 2);
    const py::ssize_t f = parameters[6].shape(0);
    if (dropped < 0 || dropped > 255) throw py::value_error("dropped: expected 0..255, got " + std::to_string(dropped));
    batch.rows = rows;
    shape = {d, f, heads, width, epsilon, dropped, 256.0f / static_cast<float>(256 - dropped)};
    weights = weights_of(parameters, d, f);
    if (bytes) {
      batch.bytes.attention = shaped<unsigned char>("attention bytes", (*bytes)[0], {rows, heads, width, width});
      batch.bytes.out = shaped<unsigned char>("out bytes", (*bytes)[1], {rows, width, d});
      batch.bytes.hidden = shaped<unsigned char>("hidden bytes", (*bytes)[2], {rows, width, f});
      batch.bytes.down = shaped<unsigned char>("down bytes", (*bytes)[3], {rows, width, d});
    }
  }
};

py::tuple layer_forward(const py::array& x, const py::array& segments, const Parameters& parameters,
                        const std::optional<std::array<py::array, 4>>& bytes, std::int64_t heads, int dropped,
                        float epsilon, int threads, const std::string& instruction_set) {
  const Layer layer(x, segments, parameters, bytes, heads, dropped, epsilon);
  check_threads(threads);
  const rsir::Unit& unit = rsir::unit_named(instruction_set);
  Floats saved(rsir::layer_saved(layer.shape, layer.batch.rows)), y({x.shape(0), x.shape(1), x.shape(2)});
  float *to_saved = saved.mutable_data(), *out = y.mutable_data();
  {
    const rsir::NativeCall native;
    rsir::layer_forward(unit, layer.shape, layer.weights, layer.batch, threads, to_saved, out);
  }
  return py::make_tuple(y, saved);
}

py::tuple layer_backward(const py::array& x, const py::array& segments, const Parameters& parameters,
                         const std::optional<std::array<py::array, 4>>& bytes, std::int64_t heads, int dropped,
                         float epsilon, int threads, const std::string& instruction_set, const py::array& saved,
                         const py::array& grad_y) {
  const Layer layer(x, segments, parameters, bytes, heads, dropped, epsilon);
  check_threads(threads);
  const rsir::Unit& unit = rsir::unit_named(instruction_set);
  const float* from_saved = shaped<float>("saved", saved, {rsir::layer_saved(layer.shape, layer.batch.rows)});
  const float* upstream = shaped<float>("grad_y", grad_y, {x.shape(0), x.shape(1), x.shape(2)});
  Floats grad_x({x.shape(0), x.shape(1), x.shape(2)}), gradients(rsir::layer_parameters(layer.shape));
  float *out = grad_x.mutable_data(), *to_parameters = gradients.mutable_data();
  {
    const rsir::NativeCall native;
    rsir::layer_backward(unit, layer.shape, layer.weights, layer.batch, threads, from_saved, upstream, out,
                         to_parameters);
  }
  return py::make_tuple(grad_x, gradients);
}

Floats encode(const py::array& items, const py::array& offsets, const py::array& table, const py::array& positions,
              const std::vector<Parameters>& layers, std::int64_t heads, float epsilon, int threads,
              const std::string& instruction_set) {
  rsir::Histories h = {};
  h.items = data_of<std::int32_t>("items", items, 1);
  h.offsets = data_of<std::int64_t>("offsets", offsets, 1);
  h.rows = offsets.shape(0) - 1;
  h.table = data_of<float>("table", table, 2);
  const py::ssize_t known = table.shape(0), d = table.shape(1);
  data_of<float>("positions", positions, 2);
  const py::ssize_t width = positions.shape(0);
  h.positions = shaped<float>("positions", positions, {width, d});
  check_heads(heads, d);
  check_threads(threads);
  if (layers.empty() || width < 1) throw py::value_error("expected at least one layer and one position");
  if (h.rows < 0 || h.offsets[0] != 0 || h.offsets[h.rows] != items.shape(0))
    throw py::value_error("offsets: expected to rise from 0 to the number of items");
  for (std::int64_t row = 0; row < h.rows; ++row)
    if (h.offsets[row + 1] <= h.offsets[row] || h.offsets[row + 1] > items.shape(0))
      throw py::value_error("offsets: expected every history to hold an item, not so number " + std::to_string(row));
  for (py::ssize_t i = 0; i < items.shape(0); ++i)
    if (h.items[i] < 0 || h.items[i] >= known)
      throw py::value_error("items: expected ids below " + std::to_string(known) + ", got " +
                            std::to_string(h.items[i]));
  data_of<float>("up weight", layers[0][6], 2);
  const rsir::LayerShape shape = {d, layers[0][6].shape(0), heads, width, epsilon, 0, 1.0f};
  std::vector<rsir::LayerWeights> weights;
  for (const Parameters& parameters : layers) weights.push_back(weights_of(parameters, d, shape.feedforward));
  const rsir::Unit& unit = rsir::unit_named(instruction_set);
  Floats out({h.rows, static_cast<std::int64_t>(d)});
  float* to = out.mutable_data();
  {
    const rsir::NativeCall native;
    rsir::encode(unit, shape, weights, h, threads, to);
  }
  return out;
}

Floats step(const py::array& slots, const py::array& items, const py::array& at, py::array& keys, py::array& values,
            const py::array& table, const py::array& positions, const std::vector<Parameters>& layers,
            std::int64_t heads, float epsilon, int threads, const std::string& instruction_set) {
  rsir::Steps h = {};
  h.slot = data_of<std::int64_t>("slots", slots, 1);
  h.rows = slots.shape(0);
  h.items = shaped<std::int64_t>("items", items, {h.rows});
  h.at = shaped<std::int64_t>("at", at, {h.rows});
  h.table = data_of<float>("table", table, 2);
  const py::ssize_t known = table.shape(0), d = table.shape(1);
  data_of<float>("positions", positions, 2);
  const py::ssize_t width = positions.shape(0);
  h.positions = shaped<float>("positions", positions, {width, d});
  check_heads(heads, d);
  check_threads(threads);
  if (layers.empty()) throw py::value_error("expected at least one layer");
  data_of<float>("keys", keys, 5);
  h.slots = keys.shape(1);
  const std::vector<py::ssize_t> shape = {static_cast<py::ssize_t>(layers.size()), h.slots, heads, width, d / heads};
  shaped<float>("keys", keys, shape);
  shaped<float>("values", values, shape);
  h.keys = static_cast<float*>(keys.mutable_data());  // refuses an array that is not writeable
  h.values = static_cast<float*>(values.mutable_data());
  std::vector<char> named(static_cast<std::size_t>(h.slots), 0);
  for (std::int64_t row = 0; row < h.rows; ++row) {
    const std::int64_t slot = h.slot[row];
    if (slot < 0 || slot >= h.slots || named[static_cast<std::size_t>(slot)]++)
      throw py::value_error("slots: expected distinct ones below " + std::to_string(h.slots) + ", not so in row " +
                            std::to_string(row));
    if (h.items[row] < 0 || h.items[row] >= known || h.at[row] < 0 || h.at[row] >= width)
      throw py::value_error("row " + std::to_string(row) + ": expected an id below " + std::to_string(known) +
                            " and a place below " + std::to_string(width));
  }
  data_of<float>("up weight", layers[0][6], 2);
  const rsir::LayerShape layer = {d, layers[0][6].shape(0), heads, width, epsilon, 0, 1.0f};
  std::vector<rsir::LayerWeights> weights;
  for (const Parameters& parameters : layers) weights.push_back(weights_of(parameters, d, layer.feedforward));
  const rsir::Unit& unit = rsir::unit_named(instruction_set);
  Floats out({h.rows, static_cast<std::int64_t>(d)});
  float* to = out.mutable_data();
  {
    const rsir::NativeCall native;
    rsir::step(unit, layer, weights, h, threads, to);
  }
  return out;
}

float* writeable(const char* name, py::array& value, const std::vector<py::ssize_t>& shape) {
  shaped<float>(name, value, shape);
  return static_cast<float*>(value.mutable_data());  // refuses an array that is not writeable
}

void adam_rows(py::array& weights, py::array& first, py::array& second, Optional& last, const Optional& ids,
               const Optional& gradients, std::int64_t step, double rate, const std::array<double, 2>& betas,
               double epsilon, Optional& average, double decay, std::int64_t padding, int threads,
               const std::string& instruction_set) {
  data_of<float>("weights", weights, 2);
  rsir::AdamTable table = {};
  table.rows = weights.shape(0), table.dim = weights.shape(1);
  const std::vector<py::ssize_t> shape = {table.rows, table.dim};
  table.padding = padding;
  table.weights = writeable("weights", weights, shape);
  table.first = writeable("first", first, shape);
  table.second = writeable("second", second, shape);
  if (last) {
    shaped<std::int32_t>("last", *last, {table.rows});
    table.last = static_cast<std::int32_t*>(last->mutable_data());
  }
  if (average) table.average = writeable("average", *average, shape);
  const std::int64_t n = ids ? ids->size() : 0;
  const std::int64_t* rows = optional<std::int64_t>("ids", ids, {n});
  for (std::int64_t k = 0; k < n; ++k)
    if (rows[k] < 0 || rows[k] >= table.rows)
      throw py::value_error("ids: expected rows below " + std::to_string(table.rows) + ", got " +
                            std::to_string(rows[k]));
  const bool of_all = !last && !ids;
  const float* values = optional<float>("gradients", gradients, {of_all ? table.rows : n, table.dim});
  if (last && values && !rows) throw py::value_error("gradients: expected ids to go with them");
  if (!last && !values) throw py::value_error("gradients: expected some, as no row stays behind without `last`");
  if (step < 1 || step > std::numeric_limits<std::int32_t>::max())
    throw py::value_error("step: expected 1..2**31 - 1, got " + std::to_string(step));
  for (const double beta : betas)
    if (!(beta >= 0.0 && beta < 1.0)) throw py::value_error("betas: expected numbers in [0, 1)");
  if (!(betas[0] * betas[0] < betas[1]))
    throw py::value_error("betas: expected the first one's square below the second");
  if (!(decay >= 0.0 && decay < 1.0)) throw py::value_error("decay: expected a number in [0, 1)");
  check_threads(threads);
  const rsir::Unit& unit = rsir::unit_named(instruction_set);
  const rsir::AdamSettings settings = {rate, betas[0], betas[1], epsilon, decay};
  const rsir::NativeCall native;
  if (!last)
    rsir::adam_whole(unit, settings, table, rows, n, values, step, threads);
  else if (values)
    rsir::adam_step(settings, table, rows, n, values, step, threads);
  else
    rsir::adam_catch_up(settings, table, rows, n, step, threads);
}

}  // namespace

namespace rsir {

void bind_training(py::module_& m) {
  m.def("sampled_softmax", &sampled_softmax, py::arg("queries"), py::arg("positives"), py::arg("negatives"),
        py::arg("targets"), py::arg("negative_ids"), py::arg("weights"), py::arg("target_offsets").none(true),
        py::arg("negative_offsets").none(true), py::arg("threads"), py::arg("instruction_set"));
  m.def("full_softmax", &full_softmax, py::arg("queries"), py::arg("items"), py::arg("targets"), py::arg("weights"),
        py::arg("threads"), py::arg("instruction_set"));
  m.def("layer_forward", &::layer_forward, py::arg("x"), py::arg("segments"), py::arg("parameters"),
        py::arg("bytes").none(true), py::arg("heads"), py::arg("dropped"), py::arg("epsilon"), py::arg("threads"),
        py::arg("instruction_set"));
  m.def("layer_backward", &::layer_backward, py::arg("x"), py::arg("segments"), py::arg("parameters"),
        py::arg("bytes").none(true), py::arg("heads"), py::arg("dropped"), py::arg("epsilon"), py::arg("threads"),
        py::arg("instruction_set"), py::arg("saved"), py::arg("grad_y"));
  m.def("adam_rows", &::adam_rows, py::arg("weights"), py::arg("first"), py::arg("second"), py::arg("last").none(true),
        py::arg("ids").none(true), py::arg("gradients").none(true), py::arg("step"), py::arg("rate"), py::arg("betas"),
        py::arg("epsilon"), py::arg("average").none(true), py::arg("decay"), py::arg("padding"),
        py::arg("threads"), py::arg("instruction_set"));
  m.def("encode", &::encode, py::arg("items"), py::arg("offsets"), py::arg("table"), py::arg("positions"),
        py::arg("layers"), py::arg("heads"), py::arg("epsilon"), py::arg("threads"), py::arg("instruction_set"));
  m.def("step", &::step, py::arg("slots"), py::arg("items"), py::arg("at"), py::arg("keys"), py::arg("values"),
        py::arg("table"), py::arg("positions"), py::arg("layers"), py::arg("heads"), py::arg("epsilon"),
        py::arg("threads"), py::arg("instruction_set"));
}

}  // namespace rsir
