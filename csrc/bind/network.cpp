// The ops of network/ for Python: shapes, ids and settings are checked, then the GIL is released.
#include <algorithm>
#include <array>
#include <limits>
#include <tuple>

#include "bind/arguments.hpp"
#include "bind/module.hpp"
#include "network/adam.hpp"
#include "network/softmax.hpp"
#include "network/transformer.hpp"

namespace rsir::bind {

namespace {

using Optional = std::optional<py::array>;
using Parameters = std::array<py::array, 12>;  // of a layer, in the order of LayerWeights
using Bytes = std::vector<py::array>;          // in the order of LayerBytes
using Filter = std::tuple<py::array, py::array, py::array, py::array, float, float>;  // as LayerWeights ends

py::tuple sampled_softmax(const py::array& queries, const py::array& positives, const py::array& negatives,
                          const py::array& targets, const py::array& negative_ids, const py::array& weights,
                          const Optional& target_offsets, const Optional& negative_offsets, Threads threads,
                          const Unit& unit, bool bfloat16) {
  Softmax s = {};
  s.queries = data_of<float>("queries", queries, {kAny, kAny});
  s.positions = queries.shape(0), s.dim = queries.shape(1);
  s.negatives = data_of<float>("negatives", negatives, {kAny, s.dim});
  s.columns = negatives.shape(0);
  s.positives = data_of<float>("positives", positives, {s.positions, s.dim});
  s.targets = data_of<std::int64_t>("targets", targets, {s.positions});
  s.negative_ids = data_of<std::int64_t>("negative_ids", negative_ids, {s.columns});
  s.weights = data_of<float>("weights", weights, {s.positions});
  s.target_offsets = data_of<float>("target_offsets", target_offsets, {s.positions});
  s.negative_offsets = data_of<float>("negative_offsets", negative_offsets, {s.columns});
  Output<float> to_queries({s.positions, s.dim}), to_positives({s.positions, s.dim}), to_negatives({s.columns, s.dim});
  const SoftmaxGradients gradients = {to_queries.data, to_positives.data, to_negatives.data};
  const double loss = run_native([&] { return softmax(unit, s, bfloat16, threads, gradients); });
  return py::make_tuple(loss, to_queries.array, to_positives.array, to_negatives.array);
}

py::tuple full_softmax(const py::array& queries, const py::array& items, const py::array& targets,
                       const py::array& weights, Threads threads, const Unit& unit, bool bfloat16) {
  Softmax s = {};
  s.queries = data_of<float>("queries", queries, {kAny, kAny});
  s.positions = queries.shape(0), s.dim = queries.shape(1);
  s.negatives = data_of<float>("items", items, {kAny, s.dim}) + s.dim;
  s.columns = items.shape(0) - 1;
  if (s.columns < 1) throw py::value_error("items: expected at least two rows");
  const std::int64_t* ids = data_of<std::int64_t>("targets", targets, {s.positions});
  s.weights = data_of<float>("weights", weights, {s.positions});
  std::vector<std::int64_t> columns(static_cast<std::size_t>(s.positions), 0);
  for (std::int64_t i = 0; i < s.positions; ++i) {
    if (s.weights[i] == 0.0f) continue;
    if (ids[i] < 1 || ids[i] > s.columns)
      throw py::value_error("targets: position " + std::to_string(i) + " holds id " + std::to_string(ids[i]) +
                            ", expected ids in 1.." + std::to_string(s.columns));
    columns[static_cast<std::size_t>(i)] = ids[i] - 1;
  }
  s.targets = columns.data();
  Output<float> to_queries({s.positions, s.dim}), to_items({s.columns + 1, s.dim});
  std::fill_n(to_items.data, s.dim, 0.0f);
  const SoftmaxGradients gradients = {to_queries.data, nullptr, to_items.data + s.dim};
  const double loss = run_native([&] { return softmax(unit, s, bfloat16, threads, gradients); });
  return py::make_tuple(loss, to_queries.array, to_items.array);
}

py::ssize_t feedforward_of(const Parameters& parameters, py::ssize_t d) {
  data_of<float>("up weight", parameters[6], {kAny, d});
  return parameters[6].shape(0);
}

LayerWeights weights_of(const Parameters& parameters, py::ssize_t d, py::ssize_t f) {
  const Shape shapes[12] = {{3 * d, d}, {3 * d}, {d, d}, {d}, {d}, {d}, {f, d}, {f}, {d, f}, {d}, {d}, {d}};
  const float* p[12];
  for (std::size_t i = 0; i < 12; ++i)
    p[i] = data_of<float>("parameter " + std::to_string(i), parameters[i], shapes[i]);
  return {p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], {}, {}, {}, {}, {}, {}};
}

// Adds the filter to a layer's weights; reach is the number of distances, or kAny for those there are, and is returned.
py::ssize_t add_filter(const Filter& filter, std::int64_t heads, py::ssize_t d, py::ssize_t reach, LayerWeights& w) {
  const auto& [distances, beta, weight, bias, share, decay] = filter;
  w.distances = data_of<float>("distances", distances, {heads, reach});
  w.beta = data_of<float>("beta", beta, {d});
  w.filter_weight = data_of<float>("filter weight", weight, {d});
  w.filter_bias = data_of<float>("filter bias", bias, {d});
  w.share = share, w.decay = decay;
  return distances.shape(1);
}

void check_heads(std::int64_t heads, py::ssize_t d) {
  if (heads < 1 || d < 1 || d % heads != 0)
    throw py::value_error("heads: expected a divisor of " + std::to_string(d) + ", got " + std::to_string(heads));
}

// A layer over a packed batch.
struct Layer {
  LayerShape shape = {};
  LayerWeights weights = {};
  LayerBatch batch = {};
  Shape sizes;  // of x

  Layer(const py::array& x, const py::array& segments, const Parameters& parameters, const std::optional<Bytes>& bytes,
        const std::optional<Filter>& filter, std::int64_t heads, int dropped, float epsilon) {
    batch.x = data_of<float>("x", x, {kAny, kAny, kAny});
    const py::ssize_t rows = x.shape(0), width = x.shape(1), d = x.shape(2);
    sizes = {rows, width, d};
    batch.rows = rows;
    batch.segments = data_of<std::int64_t>("segments", segments, {rows, width});
    check_heads(heads, d);
    if (dropped < 0 || dropped > 255) throw py::value_error("dropped: expected 0..255, got " + std::to_string(dropped));
    const py::ssize_t f = feedforward_of(parameters, d);
    shape = {d, f, heads, width, epsilon, dropped, 256.0f / static_cast<float>(256 - dropped)};
    weights = weights_of(parameters, d, f);
    if (filter) shape.reach = add_filter(*filter, heads, d, kAny, weights);
    const std::int64_t least = std::max<py::ssize_t>(width, 1);
    if (filter && shape.reach < least)
      throw py::value_error("distances: expected at least " + std::to_string(least) + " columns, got " +
                            std::to_string(shape.reach));
    if (!bytes) return;
    const std::size_t kinds = filter ? 5 : 4;
    if (bytes->size() != kinds)
      throw py::value_error("bytes: expected " + std::to_string(kinds) + " arrays, got " +
                            std::to_string(bytes->size()));
    batch.bytes.attention = data_of<unsigned char>("attention bytes", (*bytes)[0], {rows, heads, width, width});
    batch.bytes.out = data_of<unsigned char>("out bytes", (*bytes)[1], {rows, width, d});
    batch.bytes.hidden = data_of<unsigned char>("hidden bytes", (*bytes)[2], {rows, width, f});
    batch.bytes.down = data_of<unsigned char>("down bytes", (*bytes)[3], {rows, width, d});
    if (filter) batch.bytes.low = data_of<unsigned char>("low bytes", (*bytes)[4], {rows, width, d});
  }
};

py::tuple layer_forward(const py::array& x, const py::array& segments, const Parameters& parameters,
                        const std::optional<Bytes>& bytes, const std::optional<Filter>& filter, std::int64_t heads,
                        int dropped, float epsilon, Threads threads, const Unit& unit) {
  const Layer l(x, segments, parameters, bytes, filter, heads, dropped, epsilon);
  Output<float> saved({layer_saved(l.shape, l.batch.rows)}), y(l.sizes);
  run_native([&] { rsir::layer_forward(unit, l.shape, l.weights, l.batch, threads, saved.data, y.data); });
  return py::make_tuple(y.array, saved.array);
}

py::tuple layer_backward(const py::array& x, const py::array& segments, const Parameters& parameters,
                         const std::optional<Bytes>& bytes, const std::optional<Filter>& filter, std::int64_t heads,
                         int dropped, float epsilon, Threads threads, const Unit& unit, const py::array& saved,
                         const py::array& grad_y) {
  const Layer l(x, segments, parameters, bytes, filter, heads, dropped, epsilon);
  const float* from = data_of<float>("saved", saved, {layer_saved(l.shape, l.batch.rows)});
  const float* upstream = data_of<float>("grad_y", grad_y, l.sizes);
  Output<float> grad_x(l.sizes), gradients({layer_parameters(l.shape)});
  run_native([&] {
    rsir::layer_backward(unit, l.shape, l.weights, l.batch, threads, from, upstream, grad_x.data, gradients.data);
  });
  return py::make_tuple(grad_x.array, gradients.array);
}

// A stack of layers, and what their input is looked up in.
struct Encoder {
  const float *table, *positions;
  py::ssize_t known, width = kAny, d;
  LayerShape shape = {};
  std::vector<LayerWeights> layers;

  Encoder(const py::array& table, const Optional& positions, const std::vector<Parameters>& layers,
          const std::optional<std::vector<Filter>>& filters, std::int64_t heads, float epsilon)
      : table(data_of<float>("table", table, {kAny, kAny})),
        positions(data_of<float>("positions", positions, {kAny, table.shape(1)})),
        known(table.shape(0)),
        d(table.shape(1)) {
    check_heads(heads, d);
    if (layers.empty()) throw py::value_error("expected at least one layer");
    if (filters && filters->size() != layers.size()) throw py::value_error("filters: expected one a layer");
    if (!positions && !filters) throw py::value_error("positions: expected some without filters");
    const std::int64_t f = feedforward_of(layers[0], d);
    for (const Parameters& layer : layers) this->layers.push_back(weights_of(layer, d, f));
    if (positions) width = positions->shape(0);
    for (std::size_t i = 0; filters && i < layers.size(); ++i)
      width = add_filter((*filters)[i], heads, d, width, this->layers[i]);
    if (width < 1) throw py::value_error("expected at least one position");
    shape = {d, f, heads, width, epsilon, 0, 1.0f, filters ? width : 0};
  }
};

py::object encode(const py::array& items, const py::array& offsets, const py::array& table, const Optional& positions,
                  const std::vector<Parameters>& layers, const std::optional<std::vector<Filter>>& filters,
                  std::int64_t heads, float epsilon, Threads threads, const Unit& unit) {
  const Encoder e(table, positions, layers, filters, heads, epsilon);
  Histories h = {};
  h.table = e.table, h.positions = e.positions;
  h.items = data_of<std::int32_t>("items", items, {kAny});
  h.offsets = data_of<std::int64_t>("offsets", offsets, {kAny});
  h.rows = offsets.shape(0) - 1;
  const std::int64_t size = items.shape(0);
  if (h.rows < 0 || h.offsets[0] != 0 || h.offsets[h.rows] != size)
    throw py::value_error("offsets: expected to rise from 0 to the number of items");
  for (std::int64_t row = 0; row < h.rows; ++row)
    if (h.offsets[row + 1] <= h.offsets[row] || h.offsets[row + 1] > size)
      throw py::value_error("offsets: expected every history to hold an item, not so number " + std::to_string(row));
  for (std::int64_t i = 0; i < size; ++i)
    if (h.items[i] < 0 || h.items[i] >= e.known)
      throw py::value_error("items: expected ids below " + std::to_string(e.known) + ", got " +
                            std::to_string(h.items[i]));
  Output<float> out({h.rows, e.d});
  run_native([&] { rsir::encode(unit, e.shape, e.layers, h, threads, out.data); });
  return out.array;
}

py::object step(const py::array& slots, const py::array& items, const py::array& at, py::array& keys,
                py::array& values, Optional& low, const py::array& table, const Optional& positions,
                const std::vector<Parameters>& layers, const std::optional<std::vector<Filter>>& filters,
                std::int64_t heads, float epsilon, Threads threads, const Unit& unit) {
  const Encoder e(table, positions, layers, filters, heads, epsilon);
  Steps h = {};
  h.table = e.table, h.positions = e.positions;
  h.slot = data_of<std::int64_t>("slots", slots, {kAny});
  h.rows = slots.shape(0);
  h.items = data_of<std::int64_t>("items", items, {h.rows});
  h.at = data_of<std::int64_t>("at", at, {h.rows});
  const Shape caches = {static_cast<py::ssize_t>(layers.size()), kAny, heads, e.width, e.d / heads};
  h.keys = writeable<float>("keys", keys, caches);
  h.slots = keys.shape(1);
  h.values = writeable<float>("values", values, {caches[0], h.slots, heads, e.width, caches[4]});
  h.low = writeable<float>("low", low, {caches[0], h.slots, e.d});
  if (filters.has_value() != low.has_value()) throw py::value_error("low: expected with filters, and only then");
  std::vector<char> named(static_cast<std::size_t>(h.slots), 0);
  for (std::int64_t row = 0; row < h.rows; ++row) {
    const std::int64_t slot = h.slot[row];
    if (slot < 0 || slot >= h.slots || named[static_cast<std::size_t>(slot)]++)
      throw py::value_error("slots: expected distinct ones below " + std::to_string(h.slots) + ", not so in row " +
                            std::to_string(row));
    if (h.items[row] < 0 || h.items[row] >= e.known || h.at[row] < 0 || h.at[row] >= e.width)
      throw py::value_error("row " + std::to_string(row) + ": expected an id below " + std::to_string(e.known) +
                            " and a place below " + std::to_string(e.width));
  }
  Output<float> out({h.rows, e.d});
  run_native([&] { rsir::step(unit, e.shape, e.layers, h, threads, out.data); });
  return out.array;
}

void adam_rows(py::array& weights, py::array& first, py::array& second, Optional& last, const Optional& ids,
               const Optional& gradients, std::int64_t step, double rate, const std::array<double, 2>& betas,
               double epsilon, Optional& average, double decay, std::int64_t padding, Threads threads,
               const Unit& unit) {
  AdamTable table = {};
  table.weights = writeable<float>("weights", weights, {kAny, kAny});
  table.rows = weights.shape(0), table.dim = weights.shape(1), table.padding = padding;
  table.first = writeable<float>("first", first, {table.rows, table.dim});
  table.second = writeable<float>("second", second, {table.rows, table.dim});
  table.last = writeable<std::int32_t>("last", last, {table.rows});
  table.average = writeable<float>("average", average, {table.rows, table.dim});
  const std::int64_t* rows = data_of<std::int64_t>("ids", ids, {kAny});
  const std::int64_t n = ids ? ids->shape(0) : 0;
  for (std::int64_t k = 0; k < n; ++k)
    if (rows[k] < 0 || rows[k] >= table.rows)
      throw py::value_error("ids: expected rows below " + std::to_string(table.rows) + ", got " +
                            std::to_string(rows[k]));
  const bool of_all = !last && !ids;
  const float* values = data_of<float>("gradients", gradients, {of_all ? table.rows : n, table.dim});
  if (last && values && !rows) throw py::value_error("gradients: expected ids to go with them");
  if (!last && !values) throw py::value_error("gradients: expected some, as no row stays behind without `last`");
  if (step < 1 || step > std::numeric_limits<std::int32_t>::max())
    throw py::value_error("step: expected 1..2**31 - 1, got " + std::to_string(step));
  for (const double beta : betas)
    if (!(beta >= 0.0 && beta < 1.0)) throw py::value_error("betas: expected numbers in [0, 1)");
  if (!(betas[0] * betas[0] < betas[1]))
    throw py::value_error("betas: expected the first one's square below the second");
  if (!(decay >= 0.0 && decay < 1.0)) throw py::value_error("decay: expected a number in [0, 1)");
  const AdamSettings settings = {rate, betas[0], betas[1], epsilon, decay};
  run_native([&] {
    if (!last)
      adam_whole(unit, settings, table, rows, n, values, step, threads);
    else if (values)
      adam_step(settings, table, rows, n, values, step, threads);
    else
      adam_catch_up(settings, table, rows, n, step, threads);
  });
}

}  // namespace

void register_network(py::module_& m) {
  using namespace py::literals;
  m.def("sampled_softmax", &sampled_softmax, "queries"_a, "positives"_a, "negatives"_a, "targets"_a, "negative_ids"_a,
        "weights"_a, "target_offsets"_a, "negative_offsets"_a, "threads"_a, "instruction_set"_a, "bfloat16"_a = false);
  m.def("full_softmax", &full_softmax, "queries"_a, "items"_a, "targets"_a, "weights"_a, "threads"_a,
        "instruction_set"_a, "bfloat16"_a = false);
  m.def("layer_forward", &layer_forward, "x"_a, "segments"_a, "parameters"_a, "bytes"_a, "filter"_a, "heads"_a,
        "dropped"_a, "epsilon"_a, "threads"_a, "instruction_set"_a);
  m.def("layer_backward", &layer_backward, "x"_a, "segments"_a, "parameters"_a, "bytes"_a, "filter"_a, "heads"_a,
        "dropped"_a, "epsilon"_a, "threads"_a, "instruction_set"_a, "saved"_a, "grad_y"_a);
  m.def("encode", &encode, "items"_a, "offsets"_a, "table"_a, "positions"_a, "layers"_a, "filters"_a,
        "heads"_a, "epsilon"_a, "threads"_a, "instruction_set"_a);
  m.def("step", &step, "slots"_a, "items"_a, "at"_a, "keys"_a, "values"_a, "low"_a, "table"_a, "positions"_a,
        "layers"_a, "filters"_a, "heads"_a, "epsilon"_a, "threads"_a, "instruction_set"_a);
  m.def("adam_rows", &adam_rows, "weights"_a, "first"_a, "second"_a, "last"_a, "ids"_a, "gradients"_a, "step"_a,
        "rate"_a, "betas"_a, "epsilon"_a, "average"_a, "decay"_a, "padding"_a, "threads"_a, "instruction_set"_a);
}

}  // namespace rsir::bind
