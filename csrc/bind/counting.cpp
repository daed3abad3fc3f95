// The item-kNN of counting/item_knn.hpp for Python: ids and offsets are checked, then the GIL is released.
#include <cmath>
#include <memory>
#include <utility>

#include "bind/arguments.hpp"
#include "bind/module.hpp"
#include "counting/item_knn.hpp"
#include "counting/unseen.hpp"

namespace rsir::bind {

namespace {

constexpr std::int64_t kMost = std::int64_t{1} << 40;

void expect(bool holds, const std::string& message) {
  if (!holds) throw py::value_error(message);
}

void check_count(const char* name, std::int64_t value, std::int64_t most = kMost) {
  expect(value >= 1 && value <= most,
         std::string(name) + ": expected 1.." + std::to_string(most) + ", got " + std::to_string(value));
}

void check_within(const char* name, double value, double low, double high) {
  expect(value >= low && value <= high, std::string(name) + ": expected " + std::to_string(low) + ".." +
                                            std::to_string(high) + ", got " + std::to_string(value));
}

const std::int32_t* check_items(const char* name, const py::array& items, std::int64_t num_items) {
  const auto* ids = data_of<std::int32_t>(name, items, {kAny});
  for (py::ssize_t i = 0; i < items.shape(0); ++i)
    expect(ids[i] >= 1 && ids[i] <= num_items, std::string(name) + ": expected ids in 1.." +
                                                   std::to_string(num_items) + ", got " + std::to_string(ids[i]));
  return ids;
}

// (lists + 1,) offsets over nnz entries; lists kAny: however many there are.
const std::int64_t* check_offsets(const char* name, const py::array& offsets, py::ssize_t lists, std::int64_t nnz) {
  const auto* data = data_of<std::int64_t>(name, offsets, {lists == kAny ? kAny : lists + 1});
  const py::ssize_t last = offsets.shape(0) - 1;
  expect(last >= 0 && data[0] == 0 && data[last] == nnz,
         std::string(name) + ": expected offsets from 0 to " + std::to_string(nnz));
  for (py::ssize_t list = 0; list < last; ++list)
    expect(data[list] <= data[list + 1], std::string(name) + ": offsets fall after row " + std::to_string(list));
  return data;
}

void check_num_items(std::int64_t num_items) { check_count("num_items", num_items, (std::int64_t{1} << 31) - 64); }

// Arrays that Python cannot change: ids are checked once.
template <class T>
py::array_t<T> view_of(const std::vector<T>& values, const py::object& owner) {
  py::array_t<T> view(static_cast<py::ssize_t>(values.size()), values.data(), owner);
  py::detail::array_proxy(view.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return view;
}

py::tuple tuple_of(SparseLists&& lists) {
  auto held = std::make_unique<SparseLists>(std::move(lists));
  const SparseLists& kept = *held;
  const py::capsule owner(held.get(), [](void* pointer) { delete static_cast<SparseLists*>(pointer); });
  held.release();
  return py::make_tuple(py::array_t<std::int32_t>(static_cast<py::ssize_t>(kept.ids.size()), kept.ids.data(), owner),
                        py::array_t<float>(static_cast<py::ssize_t>(kept.values.size()), kept.values.data(), owner),
                        py::array_t<std::int64_t>(static_cast<py::ssize_t>(kept.offsets.size()), kept.offsets.data(),
                                                  owner));
}

// The items that go with each item, and their values.
class ItemKnn {
 public:
  explicit ItemKnn(SparseLists&& lists) : lists_(std::move(lists)) {}

  ItemKnn(const py::array& ids, const py::array& values, const py::array& offsets) {
    data_of<std::int64_t>("offsets", offsets, {kAny});
    const std::int64_t num_items = offsets.shape(0) - 2;
    check_num_items(num_items);
    const auto* from = check_offsets("offsets", offsets, num_items + 1, ids.shape(0));
    const auto* others = check_items("ids", ids, num_items);
    const auto* of_others = data_of<float>("values", values, {ids.shape(0)});
    for (py::ssize_t i = 0; i < values.shape(0); ++i)
      expect(of_others[i] >= 0.0f && std::isfinite(of_others[i]), "values: expected finite numbers of 0 or more, got " +
                                                                      std::to_string(of_others[i]));
    lists_.ids.assign(others, others + ids.shape(0));
    lists_.values.assign(of_others, of_others + ids.shape(0));
    lists_.offsets.assign(from, from + offsets.shape(0));
  }

  const SparseLists& lists() const { return lists_; }
  std::int64_t num_items() const { return static_cast<std::int64_t>(lists_.offsets.size()) - 2; }

 private:
  SparseLists lists_;
};

ItemKnnFit check_fit(std::int64_t window, double decay, double backward, double history_exponent, double item_exponent,
                     std::int64_t neighbours) {
  check_count("window", window, 1 << 16);
  check_count("neighbours", neighbours);
  check_within("decay", decay, 0.0, 1.0);
  check_within("backward", backward, 0.0, 1e6);
  check_within("history_exponent", history_exponent, 0.0, 8.0);
  check_within("item_exponent", item_exponent, 0.0, 8.0);
  return {static_cast<int>(window), decay, backward, history_exponent, item_exponent, neighbours};
}

std::unique_ptr<ItemKnn> fit_item_knn(const py::array& items, const py::array& offsets, std::int64_t num_items,
                                      std::int64_t window, double decay, double backward, double history_exponent,
                                      double item_exponent, std::int64_t neighbours, Threads threads) {
  check_num_items(num_items);
  const auto* ids = check_items("items", items, num_items);
  const SequencesView sequences{ids, check_offsets("offsets", offsets, kAny, items.shape(0)), offsets.shape(0) - 1,
                                num_items};
  const ItemKnnFit settings = check_fit(window, decay, backward, history_exponent, item_exponent, neighbours);
  return std::make_unique<ItemKnn>(run_native([&] { return rsir::fit_item_knn(sequences, settings, threads); }));
}

py::tuple score(const ItemKnn& knn, const py::array& items, const py::array& begins, const py::array& ends,
                double decay, std::int64_t newest, std::int64_t most, bool without_own, Threads threads) {
  const std::int64_t num_items = knn.num_items();
  const SparseLists& lists = knn.lists();
  const ItemKnnLists neighbours{lists.offsets.data(), lists.ids.data(), lists.values.data(), num_items};
  const Histories histories{check_items("items", items, num_items), data_of<std::int64_t>("begins", begins, {kAny}),
                            data_of<std::int64_t>("ends", ends, {begins.shape(0)}), begins.shape(0)};
  for (std::int64_t row = 0; row < histories.rows; ++row)
    expect(0 <= histories.begins[row] && histories.begins[row] <= histories.ends[row] &&
               histories.ends[row] <= items.shape(0),
           "begins and ends: expected 0 <= begin <= end <= " + std::to_string(items.shape(0)) + ", got " +
               std::to_string(histories.begins[row]) + " and " + std::to_string(histories.ends[row]) + " in row " +
               std::to_string(row));
  check_within("decay", decay, 0.0, 1.0);
  check_count("newest", newest);
  check_count("most", most);
  const ItemKnnScoring settings{decay, newest, most, without_own};
  return tuple_of(run_native([&] { return rsir::score_histories(neighbours, histories, settings, threads); }));
}

py::array_t<std::int64_t> ranks_unseen(const ItemKnn& knn, const py::array& occurrences, const py::array& own,
                                       const py::array& own_offsets, const py::array& histories,
                                       const py::array& history_offsets, const py::array& targets,
                                       const py::array& target_offsets, std::int64_t window, double decay,
                                       double backward, double history_exponent, double item_exponent,
                                       double age_decay, std::int64_t newest, std::int64_t tau, Threads threads) {
  const std::int64_t num_items = knn.num_items();
  const SparseLists& lists = knn.lists();
  const ItemKnnLists neighbours{lists.offsets.data(), lists.ids.data(), lists.values.data(), num_items};
  const auto* counts = data_of<std::int64_t>("occurrences", occurrences, {static_cast<py::ssize_t>(num_items) + 1});
  expect(own_offsets.ndim() == 1 && own_offsets.shape(0) >= 1, "own_offsets: expected (rows + 1,)");
  const py::ssize_t rows = own_offsets.shape(0) - 1;
  const auto lists_of = [&](const char* name, const py::array& ids, const py::array& offsets) {
    const std::int32_t* checked = check_items(name, ids, num_items);
    return IdLists{checked, check_offsets((std::string(name) + " offsets").c_str(), offsets, rows, ids.shape(0))};
  };
  const IdLists mine = lists_of("own", own, own_offsets), before = lists_of("histories", histories, history_offsets),
                wanted = lists_of("targets", targets, target_offsets);
  check_within("age_decay", age_decay, 0.0, 1.0);
  check_count("newest", newest);
  check_count("tau", tau);
  const UnseenSettings settings{check_fit(window, decay, backward, history_exponent, item_exponent, 1), age_decay,
                                newest, tau};
  py::array_t<std::int64_t> ranks(rows);
  std::int64_t* out = ranks.mutable_data();
  run_native(
      [&] { rsir::ranks_unseen(neighbours, counts, rows, mine, before, wanted, settings, threads, out); });
  return ranks;
}

}  // namespace

void register_counting(py::module_& m) {
  using namespace py::literals;
  py::class_<ItemKnn>(m, "ItemKnn")
      .def(py::init<const py::array&, const py::array&, const py::array&>(), "ids"_a, "values"_a, "offsets"_a)
      .def_static("fit", &fit_item_knn, "items"_a, "offsets"_a, "num_items"_a, "window"_a, "decay"_a, "backward"_a,
                  "history_exponent"_a, "item_exponent"_a, "neighbours"_a, "threads"_a)
      .def_property_readonly("num_items", &ItemKnn::num_items)
      .def_property_readonly("ids",
                             [](const py::object& self) { return view_of(self.cast<ItemKnn&>().lists().ids, self); })
      .def_property_readonly("values",
                             [](const py::object& self) { return view_of(self.cast<ItemKnn&>().lists().values, self); })
      .def_property_readonly(
          "offsets", [](const py::object& self) { return view_of(self.cast<ItemKnn&>().lists().offsets, self); })
      .def("score", &score, "items"_a, "begins"_a, "ends"_a, "decay"_a, "newest"_a, "most"_a, "without_own"_a,
           "threads"_a)
      .def("ranks_unseen", &ranks_unseen, "occurrences"_a, "own"_a, "own_offsets"_a, "histories"_a,
           "history_offsets"_a, "targets"_a, "target_offsets"_a, "window"_a, "decay"_a, "backward"_a,
           "history_exponent"_a, "item_exponent"_a, "age_decay"_a, "newest"_a, "tau"_a, "threads"_a);
}

}  // namespace rsir::bind
