// The ops of catalogue/ops.hpp for Python: ids and offsets are checked, then the GIL is released.
#include <memory>
#include <tuple>
#include <utility>

#include "bind/arguments.hpp"
#include "bind/module.hpp"
#include "catalogue/ops.hpp"

namespace rsir::bind {

namespace {

using Lists = std::pair<py::array, py::array>;  // ids and offsets
using OptionalLists = std::optional<Lists>;
using OptionalAdded = std::optional<std::tuple<py::array, py::array, py::array>>;  // ids, offsets and values

// A table and the weights it refers to.
class PackedTable {
 public:
  PackedTable(const py::array& weights, const Unit& unit, bool half, bool always) {
    const bool halves = py::isinstance<py::array_t<std::uint16_t>>(weights);
    const auto* half_data = halves ? data_of<std::uint16_t>("weights", weights, {kAny, kAny}) : nullptr;
    const float* data = halves ? nullptr : data_of<float>("weights", weights, {kAny, kAny});
    if (halves && !half) throw py::value_error("weights: the bits of half precision make a table of half precision");
    if (!half) weights_ = weights;
    const std::int64_t rows = weights.shape(0), dim = weights.shape(1);
    if (rows < 2 || rows > (std::int64_t{1} << 31) - 64 || dim < 1)
      throw py::value_error("weights: expected (N + 1, d) with 1 <= N < 2**31 - 64 and d >= 1, got (" +
                            std::to_string(rows) + ", " + std::to_string(dim) + ")");
    table_ = run_native([&] {
      return halves ? std::make_unique<Table>(half_data, rows - 1, dim, unit)
             : half ? std::make_unique<Table>(data, rows - 1, dim, unit, Table::Half{})
                    : std::make_unique<Table>(data, rows - 1, dim, unit);
    });
    if (always) table_->screen_always();
  }

  const Table& table() const { return *table_; }

 private:
  py::array weights_;
  std::unique_ptr<Table> table_;
};

void check_count(const char* name, std::int64_t value) {
  if (value < 1 || value > std::int64_t{1} << 40)
    throw py::value_error(std::string(name) + ": expected 1..2**40, got " + std::to_string(value));
}

void check_ids(const char* name, const std::int32_t* ids, std::int64_t begin, std::int64_t end, std::int64_t row,
               std::int64_t num_items) {
  for (std::int64_t i = begin; i < end; ++i)
    if (ids[i] < 1 || ids[i] > num_items)
      throw py::value_error(std::string(name) + ": row " + std::to_string(row) + " holds id " +
                            std::to_string(ids[i]) + ", expected ids in 1.." + std::to_string(num_items));
}

// (rows,) one item a row
const std::int32_t* check_items(const char* name, const py::array& items, std::int64_t rows, std::int64_t num_items) {
  const auto* ids = data_of<std::int32_t>(name, items, {rows});
  for (std::int64_t row = 0; row < rows; ++row) check_ids(name, ids, row, row + 1, row, num_items);
  return ids;
}

Ragged check_lists(const char* name, const Lists& lists, std::int64_t rows, std::int64_t num_items) {
  const auto* ids = data_of<std::int32_t>(name, lists.first, {kAny});
  const auto* offsets = data_of<std::int64_t>(name, lists.second, {kAny});
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

Draw check_draw(std::int64_t k, double temperature, std::uint64_t seed, const py::array& counters,
                std::int64_t rows) {
  check_count("k", k);
  if (!(temperature > 0.0)) throw py::value_error("temperature: expected above 0, got " + std::to_string(temperature));
  return {k, temperature, seed, data_of<std::int64_t>("counters", counters, {rows, 3})};
}

// What most ops take: queries of a table, and lists with a row for each.
struct Call {
  const Table& table;
  Queries queries;

  Call(const PackedTable& packed, const py::array& array)
      : table(packed.table()), queries{data_of<float>("queries", array, {kAny, table.dim}), array.shape(0)} {}

  Ragged lists(const char* name, const Lists& lists) const {
    return check_lists(name, lists, queries.rows, table.num_items);
  }
  Ragged excluded(const OptionalLists& excluded) const { return excluded ? lists("excluded", *excluded) : Ragged{}; }
  Added added(const OptionalAdded& added) const {
    if (!added) return {};
    const auto& [ids, offsets, values] = *added;
    const Ragged listed = lists("added", {ids, offsets});
    for (std::int64_t row = 0; row < queries.rows; ++row)
      for (std::int64_t i = listed.offsets[row] + 1; i < listed.offsets[row + 1]; ++i)
        if (listed.ids[i] <= listed.ids[i - 1])
          throw py::value_error("added: row " + std::to_string(row) + " does not ascend");
    return {listed.ids, listed.offsets, data_of<float>("added values", values, {ids.shape(0)})};
  }
};

py::object rank_within(const PackedTable& packed, const py::array& queries, const Lists& targets, std::int64_t tau,
                       Threads threads, const OptionalAdded& added) {
  const Call c(packed, queries);
  const Added a = c.added(added);
  const Ragged t = c.lists("targets", targets);
  check_count("tau", tau);
  Output<std::int64_t> ranks({c.queries.rows});
  run_native([&] { rsir::rank_within(c.table, c.queries, t, tau, threads, ranks.data, a); });
  return ranks.array;
}

py::object count_above(const PackedTable& packed, const py::array& queries, const py::array& bars, std::int64_t limit,
                       Threads threads, const OptionalAdded& added) {
  const Call c(packed, queries);
  const Added a = c.added(added);
  const float* b = data_of<float>("bars", bars, {c.queries.rows});
  check_count("limit", limit);
  Output<std::int64_t> counts({c.queries.rows});
  run_native([&] { rsir::count_above(c.table, c.queries, b, limit, threads, counts.data, a); });
  return counts.array;
}

py::object place_within(const PackedTable& packed, const py::array& queries, const py::array& targets,
                        const OptionalLists& excluded, std::int64_t tau, Threads threads, const OptionalAdded& added) {
  const Call c(packed, queries);
  const Added a = c.added(added);
  const Ragged x = c.excluded(excluded);
  const std::int32_t* t = check_items("targets", targets, c.queries.rows, c.table.num_items);
  check_count("tau", tau);
  Output<std::int64_t> places({c.queries.rows});
  run_native([&] { rsir::place_within(c.table, c.queries, t, x, tau, threads, places.data, a); });
  return places.array;
}

py::tuple topk(const PackedTable& packed, const py::array& queries, std::int64_t k, const OptionalLists& excluded,
               Threads threads, const OptionalAdded& added) {
  const Call c(packed, queries);
  const Added a = c.added(added);
  const Ragged x = c.excluded(excluded);
  check_count("k", k);
  Output<std::int64_t> ids({c.queries.rows, k});
  Output<float> logits({c.queries.rows, k});
  run_native([&] { rsir::topk(c.table, c.queries, k, x, threads, ids.data, logits.data, a); });
  return py::make_tuple(ids.array, logits.array);
}

py::tuple rank_and_topk(const PackedTable& packed, const py::array& queries, const Lists& targets, std::int64_t tau,
                        std::int64_t k, const OptionalLists& excluded, Threads threads, const OptionalAdded& added) {
  const Call c(packed, queries);
  const Added a = c.added(added);
  const Ragged t = c.lists("targets", targets);
  const Ragged x = c.excluded(excluded);
  check_count("tau", tau);
  check_count("k", k);
  Output<std::int64_t> ranks({c.queries.rows}), ids({c.queries.rows, k});
  Output<float> logits({c.queries.rows, k});
  run_native([&] {
    rsir::rank_and_topk(c.table, c.queries, t, tau, k, x, threads, ranks.data, ids.data, logits.data, a);
  });
  return py::make_tuple(ranks.array, ids.array, logits.array);
}

py::tuple topk_sample(const PackedTable& packed, const py::array& queries, std::int64_t k, double temperature,
                      const OptionalLists& excluded, std::uint64_t seed, const py::array& counters, Threads threads,
                      const OptionalAdded& added) {
  const Call c(packed, queries);
  const Added a = c.added(added);
  const Ragged x = c.excluded(excluded);
  const Draw draw = check_draw(k, temperature, seed, counters, c.queries.rows);
  Output<std::int64_t> ids({c.queries.rows});
  Output<float> logits({c.queries.rows});
  run_native([&] { rsir::topk_sample(c.table, c.queries, draw, x, threads, ids.data, logits.data, a); });
  return py::make_tuple(ids.array, logits.array);
}

py::tuple pool_sample(const PackedTable& packed, const py::array& queries, const Lists& pool, std::int64_t k,
                      double temperature, const OptionalLists& excluded, std::uint64_t seed,
                      const py::array& counters, Threads threads, const OptionalAdded& added) {
  const Call c(packed, queries);
  const Added a = c.added(added);
  const Ragged p = c.lists("pool", pool);
  const Ragged x = c.excluded(excluded);
  const Draw draw = check_draw(k, temperature, seed, counters, c.queries.rows);
  Output<std::int64_t> ids({c.queries.rows});
  Output<float> logits({c.queries.rows});
  run_native([&] { rsir::pool_sample(c.table, c.queries, p, draw, x, threads, ids.data, logits.data, a); });
  return py::make_tuple(ids.array, logits.array);
}

py::tuple rank_and_sample(const PackedTable& packed, const py::array& queries, const Lists& targets, std::int64_t tau,
                          std::int64_t k, double temperature, const OptionalLists& excluded, std::uint64_t seed,
                          const py::array& counters, Threads threads, const OptionalAdded& added) {
  const Call c(packed, queries);
  const Added a = c.added(added);
  const Ragged t = c.lists("targets", targets);
  const Ragged x = c.excluded(excluded);
  const Draw draw = check_draw(k, temperature, seed, counters, c.queries.rows);
  check_count("tau", tau);
  Output<std::int64_t> ranks({c.queries.rows}), ids({c.queries.rows});
  Output<float> logits({c.queries.rows});
  run_native([&] {
    rsir::rank_and_sample(c.table, c.queries, t, tau, draw, x, threads, ranks.data, ids.data, logits.data, a);
  });
  return py::make_tuple(ranks.array, ids.array, logits.array);
}

py::object logits_of(const PackedTable& packed, const py::array& queries, const Lists& lists, Threads threads) {
  const Call c(packed, queries);
  const Ragged l = c.lists("lists", lists);
  Output<float> logits({lists.first.shape(0)});
  run_native([&] { rsir::logits_of(c.table, c.queries, l, threads, logits.data); });
  return logits.array;
}

py::object neighbour_votes(const py::array& graph, const py::array& items, const Lists& sources, Threads threads) {
  const auto* neighbours = data_of<std::int32_t>("graph", graph, {kAny, kAny});
  data_of<std::int32_t>("items", items, {kAny});
  const std::int64_t rows = items.shape(0), num_items = graph.shape(0) - 1;
  const std::int32_t* ids = check_items("items", items, rows, num_items);
  const Ragged s = check_lists("sources", sources, rows, num_items);
  Output<std::int64_t> votes({rows});
  run_native([&] { rsir::neighbour_votes(neighbours, graph.shape(1), ids, rows, s, threads, votes.data); });
  return votes.array;
}

}  // namespace

void register_catalogue(py::module_& m) {
  using namespace py::literals;
  py::class_<PackedTable>(m, "PackedTable")
      .def(py::init<const py::array&, const Unit&, bool, bool>(), "weights"_a, "instruction_set"_a, "half"_a = false,
           "screen_always"_a = false)
      .def_property_readonly("num_items", [](const PackedTable& p) { return p.table().num_items; })
      .def_property_readonly("dim", [](const PackedTable& p) { return p.table().dim; })
      .def_property_readonly("nbytes", [](const PackedTable& p) { return p.table().bytes(); })
      .def_property_readonly("rows_screened", [](const PackedTable& p) { return p.table().screened.load(); })
      .def_property_readonly("instruction_set", [](const PackedTable& p) { return p.table().unit.name; });
  m.def("rank_within", &rank_within, "table"_a, "queries"_a, "targets"_a, "tau"_a, "threads"_a, "added"_a = py::none());
  m.def("count_above", &count_above, "table"_a, "queries"_a, "bars"_a, "limit"_a, "threads"_a, "added"_a = py::none());
  m.def("place_within", &place_within, "table"_a, "queries"_a, "targets"_a, "excluded"_a, "tau"_a, "threads"_a,
        "added"_a = py::none());
  m.def("topk", &topk, "table"_a, "queries"_a, "k"_a, "excluded"_a, "threads"_a, "added"_a = py::none());
  m.def("topk_sample", &topk_sample, "table"_a, "queries"_a, "k"_a, "temperature"_a, "excluded"_a, "seed"_a,
        "counters"_a, "threads"_a, "added"_a = py::none());
  m.def("pool_sample", &pool_sample, "table"_a, "queries"_a, "pool"_a, "k"_a, "temperature"_a, "excluded"_a, "seed"_a,
        "counters"_a, "threads"_a, "added"_a = py::none());
  m.def("rank_and_sample", &rank_and_sample, "table"_a, "queries"_a, "targets"_a, "tau"_a, "k"_a, "temperature"_a,
        "excluded"_a, "seed"_a, "counters"_a, "threads"_a, "added"_a = py::none());
  m.def("rank_and_topk", &rank_and_topk, "table"_a, "queries"_a, "targets"_a, "tau"_a, "k"_a, "excluded"_a, "threads"_a,
        "added"_a = py::none());
  m.def("logits_of", &logits_of, "table"_a, "queries"_a, "lists"_a, "threads"_a);
  m.def("neighbour_votes", &neighbour_votes, "graph"_a, "items"_a, "sources"_a, "threads"_a);
}

}  // namespace rsir::bind
