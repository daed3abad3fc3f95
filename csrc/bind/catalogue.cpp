// Python's view of the core: checks shapes, types and ids, then releases the GIL.
// The checks keep memory safe whatever comes in; rsir/ops says the same things to users earlier and in more words.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "bind/arguments.hpp"
#include "catalogue/ops.hpp"
#include "support/measure.hpp"

namespace py = pybind11;

namespace rsir {
void bind_training(py::module_&);  // bind/network.cpp
}

namespace {

using rsir::data_of;
using rsir::Draw;
using rsir::Unit;
using rsir::Queries;
using rsir::Ragged;
using rsir::Table;

using Lists = std::pair<py::array, py::array>;

// A table and the weights it refers to.
class PackedTable {
 public:
  PackedTable(const py::array& weights, const std::string& instruction_set, bool half) {
    const bool halves = py::isinstance<py::array_t<std::uint16_t>>(weights);
    const auto* half_data = halves ? data_of<std::uint16_t>("weights", weights, 2) : nullptr;
    const float* data = halves ? nullptr : data_of<float>("weights", weights, 2);
    if (halves && !half) throw py::value_error("weights: the bits of half precision make a table of half precision");
    if (!half) weights_ = weights;
    const std::int64_t rows = weights.shape(0), dim = weights.shape(1);
    if (rows < 2 || rows > (std::int64_t{1} << 31) - 64 || dim < 1)
      throw py::value_error("weights: expected (N + 1, d) with 1 <= N < 2**31 - 64 and d >= 1, got (" +
                            std::to_string(rows) + ", " + std::to_string(dim) + ")");
    const Unit& unit = rsir::unit_named(instruction_set);
    const rsir::NativeCall native;
    table_ = halves ? std::make_unique<Table>(half_data, rows - 1, dim, unit)
             : half ? std::make_unique<Table>(data, rows - 1, dim, unit, Table::Half{})
                    : std::make_unique<Table>(data, rows - 1, dim, unit);
  }

  const Table& table() const { return *table_; }

 private:
  py::array weights_;
  std::unique_ptr<Table> table_;
};

Queries check_queries(const Table& table, const py::array& queries) {
  const float* data = data_of<float>("queries", queries, 2);
  if (queries.shape(1) != table.dim)
    throw py::value_error("queries: expected width " + std::to_string(table.dim) + ", got " +
                          std::to_string(queries.shape(1)));
  return {data, queries.shape(0)};
}

void check_ids(const char* name, const std::int32_t* ids, std::int64_t begin, std::int64_t end, std::int64_t row,
               std::int64_t num_items) {
  for (std::int64_t i = begin; i < end; ++i)
    if (ids[i] < 1 || ids[i] > num_items)
      throw py::value_error(std::string(name) + ": row " + std::to_string(row) + " holds id " +
                            std::to_string(ids[i]) + ", expected ids in 1.." + std::to_string(num_items));
}

Ragged check_lists(const char* name, const Lists& lists, std::int64_t rows, std::int64_t num_items) {
  const auto* ids = data_of<std::int32_t>(name, lists.first, 1);
  const auto* offsets = data_of<std::int64_t>(name, lists.second, 1);
  const std::string what = name;
  if (lists.second.shape(0) != rows + 1)
    throw py::value_error(what + ": expected " + std::to_string(rows + 1) + " offsets, got " +
                          std::to_string(lists.second.shape(0)));
  if (offsets[0] != 0 || offsets[rows] != lists.first.shape(0))
    throw py::value_error(what + ": expected offsets from 0 to the number of ids");
  for (std::int64_t row = 0; row < rows; ++row)
    if (offsets[row] > offsets[row + 1])
      throw py::value_error(what + ": offsets fall after row " + std::to_string(row));
  for (std::int64_t row = 0; row < rows; ++row) check_ids(name, ids, offsets[row], offsets[row + 1], row, num_items);
  return {ids, offsets};
}

Ragged check_excluded(const std::optional<Lists>& excluded, std::int64_t rows, std::int64_t num_items) {
  return excluded ? check_lists("excluded", *excluded, rows, num_items) : Ragged{};
}

void check_count(const char* name, std::int64_t value) {
  if (value < 1 || value > std::int64_t{1} << 40)
    throw py::value_error(std::string(name) + ": expected 1..2**40, got " + std::to_string(value));
}

Draw check_draw(std::int64_t k, double temperature, std::uint64_t seed, const py::array& counters,
                std::int64_t rows) {
  check_count("k", k);
  if (!(temperature > 0.0)) throw py::value_error("temperature: expected above 0, got " + std::to_string(temperature));
  const auto* words = data_of<std::int64_t>("counters", counters, 2);
  if (counters.shape(0) != rows || counters.shape(1) != 3)
    throw py::value_error("counters: expected (" + std::to_string(rows) + ", 3)");
  return {k, temperature, seed, words};
}

py::array_t<std::int64_t> rank_within(const PackedTable& packed, const py::array& queries, const Lists& targets,
                                      std::int64_t tau, int threads) {
  const Table& table = packed.table();
  const Queries q = check_queries(table, queries);
  const Ragged t = check_lists("targets", targets, q.rows, table.num_items);
  check_count("tau", tau);
  check_count("threads", threads);
  py::array_t<std::int64_t> ranks(q.rows);
  std::int64_t* out = ranks.mutable_data();
  const rsir::NativeCall native;
  rsir::rank_within(table, q, t, tau, threads, out);
  return ranks;
}

py::array_t<std::int64_t> count_above(const PackedTable& packed, const py::array& queries, const py::array& bars,
                                      std::int64_t limit, int threads) {
  const Table& table = packed.table();
  const Queries q = check_queries(table, queries);
  const float* b = data_of<float>("bars", bars, 1);
  if (bars.shape(0) != q.rows) throw py::value_error("bars: expected (" + std::to_string(q.rows) + ",)");
  check_count("limit", limit);
  check_count("threads", threads);
  py::array_t<std::int64_t> counts(q.rows);
  std::int64_t* out = counts.mutable_data();
  const rsir::NativeCall native;
  rsir::count_above(table, q, b, limit, threads, out);
  return counts;
}

py::array_t<std::int64_t> place_within(const PackedTable& packed, const py::array& queries, const py::array& targets,
                                       const std::optional<Lists>& excluded, std::int64_t tau, int threads) {
  const Table& table = packed.table();
  const Queries q = check_queries(table, queries);
  const Ragged x = check_excluded(excluded, q.rows, table.num_items);
  const std::int32_t* t = data_of<std::int32_t>("targets", targets, 1);
  if (targets.shape(0) != q.rows) throw py::value_error("targets: expected (" + std::to_string(q.rows) + ",)");
  for (std::int64_t row = 0; row < q.rows; ++row)
    if (t[row] < 1 || t[row] > table.num_items)
      throw py::value_error("targets: row " + std::to_string(row) + " holds id " + std::to_string(t[row]) +
                            ", expected 1.." + std::to_string(table.num_items));
  check_count("tau", tau);
  check_count("threads", threads);
  py::array_t<std::int64_t> places(q.rows);
  std::int64_t* out = places.mutable_data();
  const rsir::NativeCall native;
  rsir::place_within(table, q, t, x, tau, threads, out);
  return places;
}

py::tuple topk(const PackedTable& packed, const py::array& queries, std::int64_t k,
               const std::optional<Lists>& excluded, int threads) {
  const Table& table = packed.table();
  const Queries q = check_queries(table, queries);
  const Ragged x = check_excluded(excluded, q.rows, table.num_items);
  check_count("k", k);
  check_count("threads", threads);
  py::array_t<std::int64_t> ids({q.rows, k});
  py::array_t<float> logits({q.rows, k});
  std::int64_t* out_ids = ids.mutable_data();
  float* out_logits = logits.mutable_data();
  {
    const rsir::NativeCall native;
    rsir::topk(table, q, k, x, threads, out_ids, out_logits);
  }
  return py::make_tuple(ids, logits);
}

py::tuple topk_sample(const PackedTable& packed, const py::array& queries, std::int64_t k, double temperature,
                      const std::optional<Lists>& excluded, std::uint64_t seed, const py::array& counters,
                      int threads) {
  const Table& table = packed.table();
  const Queries q = check_queries(table, queries);
  const Ragged x = check_excluded(excluded, q.rows, table.num_items);
  const Draw draw = check_draw(k, temperature, seed, counters, q.rows);
  check_count("threads", threads);
  py::array_t<std::int64_t> ids(q.rows);
  py::array_t<float> logits(q.rows);
  std::int64_t* out_ids = ids.mutable_data();
  float* out_logits = logits.mutable_data();
  {
    const rsir::NativeCall native;
    rsir::topk_sample(table, q, draw, x, threads, out_ids, out_logits);
  }
  return py::make_tuple(ids, logits);
}

py::tuple pool_sample(const PackedTable& packed, const py::array& queries, const Lists& pool, std::int64_t k,
                      double temperature, const std::optional<Lists>& excluded, std::uint64_t seed,
                      const py::array& counters, int threads) {
  const Table& table = packed.table();
  const Queries q = check_queries(table, queries);
  const Ragged p = check_lists("pool", pool, q.rows, table.num_items);
  const Ragged x = check_excluded(excluded, q.rows, table.num_items);
  const Draw draw = check_draw(k, temperature, seed, counters, q.rows);
  check_count("threads", threads);
  py::array_t<std::int64_t> ids(q.rows);
  py::array_t<float> logits(q.rows);
  std::int64_t* out_ids = ids.mutable_data();
  float* out_logits = logits.mutable_data();
  {
    const rsir::NativeCall native;
    rsir::pool_sample(table, q, p, draw, x, threads, out_ids, out_logits);
  }
  return py::make_tuple(ids, logits);
}

py::tuple rank_and_sample(const PackedTable& packed, const py::array& queries, const Lists& targets,
                          std::int64_t tau, std::int64_t k, double temperature,
                          const std::optional<Lists>& excluded, std::uint64_t seed, const py::array& counters,
                          int threads) {
  const Table& table = packed.table();
  const Queries q = check_queries(table, queries);
  const Ragged t = check_lists("targets", targets, q.rows, table.num_items);
  const Ragged x = check_excluded(excluded, q.rows, table.num_items);
  const Draw draw = check_draw(k, temperature, seed, counters, q.rows);
  check_count("tau", tau);
  check_count("threads", threads);
  py::array_t<std::int64_t> ranks(q.rows), ids(q.rows);
  py::array_t<float> logits(q.rows);
  std::int64_t* out_ranks = ranks.mutable_data();
  std::int64_t* out_ids = ids.mutable_data();
  float* out_logits = logits.mutable_data();
  {
    const rsir::NativeCall native;
    rsir::rank_and_sample(table, q, t, tau, draw, x, threads, out_ranks, out_ids, out_logits);
  }
  return py::make_tuple(ranks, ids, logits);
}

py::array_t<std::int64_t> neighbour_votes(const py::array& graph, const py::array& items, const Lists& sources,
                                          int threads) {
  const auto* neighbours = data_of<std::int32_t>("graph", graph, 2);
  const auto* ids = data_of<std::int32_t>("items", items, 1);
  const std::int64_t rows = items.shape(0), num_items = graph.shape(0) - 1;
  for (std::int64_t row = 0; row < rows; ++row) check_ids("items", ids, row, row + 1, row, num_items);
  const Ragged s = check_lists("sources", sources, rows, num_items);
  check_count("threads", threads);
  py::array_t<std::int64_t> votes(rows);
  std::int64_t* out = votes.mutable_data();
  const rsir::NativeCall native;
  rsir::neighbour_votes(neighbours, graph.shape(1), ids, rows, s, threads, out);
  return votes;
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Unit* unit : rsir::available_units()) names.emplace_back(unit->name);
  return names;
}

double measure_fma(const std::string& instruction_set, int threads, double seconds) {
  const Unit& unit = rsir::unit_named(instruction_set);
  check_count("threads", threads);
  const rsir::NativeCall native;
  return rsir::measure_fma(unit.burn, threads, seconds);
}

double measure_read(int threads, std::int64_t bytes) {
  check_count("threads", threads);
  check_count("bytes", bytes);
  const rsir::NativeCall native;
  return rsir::measure_read(threads, bytes);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled core of rsir: scoring, ranking and sampling over a packed catalogue.";

  py::class_<PackedTable>(m, "PackedTable")
      .def(py::init<const py::array&, const std::string&, bool>(), py::arg("weights"), py::arg("instruction_set"),
           py::arg("half") = false)
      .def_property_readonly("num_items", [](const PackedTable& p) { return p.table().num_items; })
      .def_property_readonly("dim", [](const PackedTable& p) { return p.table().dim; })
      .def_property_readonly("nbytes", [](const PackedTable& p) { return p.table().bytes(); })
      .def_property_readonly("instruction_set", [](const PackedTable& p) { return p.table().unit.name; });

  m.def("instruction_sets", &instruction_sets, "Instruction sets usable here, best first.");
  m.def("rank_within", &rank_within, py::arg("table"), py::arg("queries"), py::arg("targets"), py::arg("tau"),
        py::arg("threads"));
  m.def("count_above", &count_above, py::arg("table"), py::arg("queries"), py::arg("bars"), py::arg("limit"),
        py::arg("threads"));
  m.def("place_within", &place_within, py::arg("table"), py::arg("queries"), py::arg("targets"),
        py::arg("excluded").none(true), py::arg("tau"), py::arg("threads"));
  m.def("topk", &topk, py::arg("table"), py::arg("queries"), py::arg("k"), py::arg("excluded").none(true),
        py::arg("threads"));
  m.def("topk_sample", &topk_sample, py::arg("table"), py::arg("queries"), py::arg("k"), py::arg("temperature"),
        py::arg("excluded").none(true), py::arg("seed"), py::arg("counters"), py::arg("threads"));
  m.def("pool_sample", &pool_sample, py::arg("table"), py::arg("queries"), py::arg("pool"), py::arg("k"),
        py::arg("temperature"), py::arg("excluded").none(true), py::arg("seed"), py::arg("counters"),
        py::arg("threads"));
  m.def("rank_and_sample", &rank_and_sample, py::arg("table"), py::arg("queries"), py::arg("targets"),
        py::arg("tau"), py::arg("k"), py::arg("temperature"), py::arg("excluded").none(true), py::arg("seed"),
        py::arg("counters"), py::arg("threads"));
  m.def("neighbour_votes", &neighbour_votes, py::arg("graph"), py::arg("items"), py::arg("sources"),
        py::arg("threads"));
  m.def("measure_fma", &measure_fma, py::arg("instruction_set"), py::arg("threads"), py::arg("seconds"),
        "Multiply-adds in registers: floating point operations per second of running, summed over threads.");
  m.def("measure_read", &measure_read, py::arg("threads"), py::arg("bytes"),
        "Bytes a second that the threads read, each from a buffer of its own.");
  rsir::bind_training(m);
}
