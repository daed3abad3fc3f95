// The loops of data/ for Python: places and ids are checked, then the GIL is released.
#include <cmath>

#include "bind/arguments.hpp"
#include "bind/module.hpp"
#include "data/drawing.hpp"
#include "data/packing.hpp"

namespace rsir::bind {

namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 40;

template <class T>
void expect_within(const std::string& name, const T* values, std::int64_t n, std::int64_t least, std::int64_t most) {
  for (std::int64_t i = 0; i < n; ++i)
    if (values[i] < least || values[i] > most)
      throw py::value_error(name + ": expected " + std::to_string(least) + ".." + std::to_string(most) + ", got " +
                            std::to_string(values[i]));
}

py::tuple assign_rows(const py::array& lengths, std::int64_t width) {
  const auto* data = data_of<std::int64_t>("lengths", lengths, {kAny});
  const py::ssize_t n = lengths.shape(0);
  if (width < 1 || width > kMost) throw py::value_error("width: expected at least 1, got " + std::to_string(width));
  expect_within("lengths", data, n, 1, width);
  Output<std::int64_t> row({n}), column({n});
  const std::int64_t rows = run_native([&] { return rsir::assign_rows(n, data, width, row.data, column.data); });
  return py::make_tuple(row.array, column.array, rows);
}

PackedSequences packed_of(const py::array& ends, const py::array& lengths, const py::array& row,
                          const py::array& column, std::int64_t rows, std::int64_t width, std::int64_t most_end) {
  PackedSequences p = {};
  p.ends = data_of<std::int64_t>("ends", ends, {kAny});
  p.n = ends.shape(0);
  p.lengths = data_of<std::int64_t>("lengths", lengths, {p.n});
  p.row = data_of<std::int64_t>("row", row, {p.n});
  p.column = data_of<std::int64_t>("column", column, {p.n});
  expect_within("row", p.row, p.n, 0, rows - 1);
  expect_within("column", p.column, p.n, 0, width);
  expect_within("ends", p.ends, p.n, 0, most_end);
  for (std::int64_t i = 0; i < p.n; ++i)
    if (p.lengths[i] < 0 || p.lengths[i] > width - p.column[i] || p.lengths[i] >= p.ends[i])
      throw py::value_error("lengths: expected inputs within a row and before the end, got " +
                            std::to_string(p.lengths[i]) + " for sequence " + std::to_string(i));
  return p;
}

void fill_rows(const py::array& items, const py::array& ends, const py::array& lengths, const py::array& row,
               const py::array& column, const py::array& weight, py::array& grid, py::array& weights) {
  const auto* from = data_of<std::int32_t>("items", items, {kAny});
  auto* to = writeable<std::int64_t>("grid", grid, {4, kAny, kAny});
  const py::ssize_t rows = grid.shape(1), width = grid.shape(2);
  auto* to_weights = writeable<float>("weights", weights, {rows, width});
  const PackedSequences p = packed_of(ends, lengths, row, column, rows, width, items.shape(0));
  const auto* weight_of = data_of<float>("weight", weight, {p.n});
  run_native([&] { rsir::fill_rows(p, from, weight_of, rows, width, to, to_weights); });
}

void soften_rows(const py::array& ids, const py::array& cumulative, double share, const py::array& numbers,
                 const py::array& ends, const py::array& lengths, const py::array& row, const py::array& column,
                 py::array& targets) {
  Soft soft = {};
  soft.ids = data_of<std::int32_t>("ids", ids, {kAny, kAny});
  soft.choices = ids.shape(1), soft.share = share;
  if (soft.choices < 1) throw py::value_error("ids: expected at least one column");
  soft.cumulative = data_of<float>("cumulative", cumulative, {ids.shape(0), ids.shape(1)});
  auto* to = writeable<std::int64_t>("targets", targets, {kAny, kAny});
  const py::ssize_t width = targets.shape(1);
  const PackedSequences p = packed_of(ends, lengths, row, column, targets.shape(0), width, ids.shape(0));
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < p.n; ++i) total += p.lengths[i];
  soft.replaces = data_of<double>("numbers", numbers, {2, total});
  soft.draws = soft.replaces + total;
  run_native([&] { rsir::soften_rows(p, soft, width, to); });
}

py::tuple near_points(const py::array& points, double reach) {
  const auto* data = data_of<double>("points", points, {kAny, 2});
  const std::int64_t n = points.shape(0);
  const Neighbours found = run_native([&] { return rsir::near_points(n, data, reach); });
  return py::make_tuple(
      py::array_t<std::int64_t>(static_cast<py::ssize_t>(found.offsets.size()), found.offsets.data()),
      py::array_t<std::int32_t>(static_cast<py::ssize_t>(found.ids.size()), found.ids.data()));
}

py::object draw_genres(const py::array& users, const py::array& uniform, const py::array& points,
                       const py::array& home, const py::array& centres, const py::array& offsets, const py::array& ids,
                       double concentration) {
  const auto* who = data_of<std::int64_t>("users", users, {kAny});
  const py::ssize_t n = users.shape(0);
  const auto* numbers = data_of<double>("uniform", uniform, {n});
  const auto* places = data_of<double>("points", points, {kAny, 2});
  const py::ssize_t known = points.shape(0);
  const auto* homes = data_of<std::int32_t>("home", home, {known});
  Genres genres = {};
  genres.centres = data_of<double>("centres", centres, {kAny, 2});
  genres.count = centres.shape(0);
  genres.ids = data_of<std::int32_t>("ids", ids, {kAny});
  genres.offsets = data_of<std::int64_t>("offsets", offsets, {genres.count + 1});
  for (std::int64_t g = 0; g < genres.count; ++g)
    if (genres.offsets[g] < 0 || genres.offsets[g + 1] <= genres.offsets[g] || genres.offsets[g + 1] > ids.shape(0))
      throw py::value_error("offsets: expected some ids for each genre, not so for number " + std::to_string(g));
  expect_within("users", who, n, 0, known - 1);
  for (py::ssize_t i = 0; i < n; ++i) expect_within("home", homes + who[i], 1, 0, genres.count - 1);
  expect_within("ids", genres.ids, ids.shape(0), 0, genres.count - 1);
  Output<std::int64_t> out({n});
  run_native([&] { rsir::draw_genres(genres, n, who, numbers, places, homes, concentration, out.data); });
  return out.array;
}

py::object find_repeats(const py::array& users, const py::array& drawn, std::int64_t step, py::array& items,
                        const py::array& offsets) {
  const auto* who = data_of<std::int64_t>("users", users, {kAny});
  const py::ssize_t n = users.shape(0);
  const auto* what = data_of<std::int32_t>("drawn", drawn, {n});
  auto* rows = writeable<std::int32_t>("items", items, {kAny});
  const auto* starts = data_of<std::int64_t>("offsets", offsets, {kAny});
  expect_within("users", who, n, 0, offsets.shape(0) - 2);
  for (py::ssize_t i = 0; i < n; ++i) {
    const std::int64_t first = starts[who[i]], end = starts[who[i] + 1];
    if (first < 0 || end > items.shape(0) || step < 0 || step >= end - first)
      throw py::value_error("step: expected a place in the row of user " + std::to_string(who[i]) + ", got " +
                            std::to_string(step));
  }
  Output<bool> repeated({n});
  run_native([&] { rsir::find_repeats(n, who, what, step, rows, starts, repeated.data); });
  return repeated.array;
}

}  // namespace

void register_data(py::module_& m) {
  using namespace py::literals;
  m.def("assign_rows", &assign_rows, "lengths"_a, "width"_a);
  m.def("fill_rows", &fill_rows, "items"_a, "ends"_a, "lengths"_a, "row"_a, "column"_a, "weight"_a, "grid"_a,
        "weights"_a);
  m.def("soften_rows", &soften_rows, "ids"_a, "cumulative"_a, "share"_a, "numbers"_a, "ends"_a, "lengths"_a, "row"_a,
        "column"_a, "targets"_a);
  m.def("near_points", &near_points, "points"_a, "reach"_a);
  m.def("draw_genres", &draw_genres, "users"_a, "uniform"_a, "points"_a, "home"_a, "centres"_a, "offsets"_a, "ids"_a,
        "concentration"_a);
  m.def("find_repeats", &find_repeats, "users"_a, "drawn"_a, "step"_a, "items"_a, "offsets"_a);
}

}  // namespace rsir::bind
