#include "counting/item_knn.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "support/parallel.hpp"

namespace rsir {

namespace {

using Entry = std::pair<std::int32_t, double>;

// A sum for each item, of which few are not 0: those are listed.
class Sums {
 public:
  explicit Sums(std::int64_t num_items) : sums_(static_cast<std::size_t>(num_items) + 1, 0.0) {}

  void add(std::int32_t item, double weight) {
    double& sum = sums_[static_cast<std::size_t>(item)];
    if (sum == 0.0) touched_.push_back(item);
    sum += weight;
  }

  void drop(std::int32_t item) { sums_[static_cast<std::size_t>(item)] = 0.0; }

  // The items whose sums are not 0, as they came, with what `value` makes of both; all sums are 0 again.
  template <class Value>
  void take(std::vector<Entry>& entries, Value value) {
    entries.clear();
    for (const std::int32_t item : touched_) {
      double& sum = sums_[static_cast<std::size_t>(item)];
      if (sum != 0.0) entries.emplace_back(item, value(item, sum));
      sum = 0.0;
    }
    touched_.clear();
  }

 private:
  std::vector<double> sums_;
  std::vector<std::int32_t> touched_;
};

// Keeps the `most` entries of the largest values, by ascending id; ties: the lower id.
void keep_largest(std::vector<Entry>& entries, std::int64_t most) {
  if (static_cast<std::int64_t>(entries.size()) > most) {
    const auto end = entries.begin() + most;
    std::nth_element(entries.begin(), end, entries.end(), [](const Entry& a, const Entry& b) {
      return a.second != b.second ? a.second > b.second : a.first < b.first;
    });
    entries.erase(end, entries.end());
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.first < b.first; });
}

struct Worker {
  explicit Worker(std::int64_t num_items) : sums(num_items) {}
  Sums sums;
  std::vector<Entry> entries;
};

constexpr std::int64_t kBlock = 64;  // lists of a task

// Calls make(list, worker) for every list, and joins the entries that it leaves there.
template <class Make>
SparseLists lists_of(std::int64_t count, std::int64_t num_items, int threads, Make make) {
  const std::int64_t blocks = (count + kBlock - 1) / kBlock;
  struct Block {
    std::vector<std::int32_t> ids;
    std::vector<float> values;
  };
  std::vector<Block> made(static_cast<std::size_t>(blocks));
  SparseLists out;
  out.offsets.assign(static_cast<std::size_t>(count) + 1, 0);
  threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, blocks)));
  std::vector<Worker> workers;
  for (int worker = 0; worker < threads; ++worker) workers.emplace_back(num_items);
  parallel_for(blocks, threads, [&](std::int64_t block, int number) {
    Worker& worker = workers[static_cast<std::size_t>(number)];
    Block own;
    for (std::int64_t list = block * kBlock; list < std::min(count, (block + 1) * kBlock); ++list) {
      make(list, worker);
      for (const Entry& entry : worker.entries) {
        own.ids.push_back(entry.first);
        own.values.push_back(static_cast<float>(entry.second));
      }
      out.offsets[static_cast<std::size_t>(list) + 1] = static_cast<std::int64_t>(worker.entries.size());
    }
    made[static_cast<std::size_t>(block)] = {{own.ids.begin(), own.ids.end()}, {own.values.begin(), own.values.end()}};
  });
  for (std::size_t list = 1; list < out.offsets.size(); ++list) out.offsets[list] += out.offsets[list - 1];
  out.ids.reserve(static_cast<std::size_t>(out.offsets.back()));
  out.values.reserve(static_cast<std::size_t>(out.offsets.back()));
  for (Block& block : made) {
    out.ids.insert(out.ids.end(), block.ids.begin(), block.ids.end());
    out.values.insert(out.values.end(), block.values.begin(), block.values.end());
    block = {};
  }
  return out;
}

std::vector<double> powers(double base, std::int64_t count) {
  std::vector<double> out(static_cast<std::size_t>(count), 1.0);
  for (std::size_t i = 1; i < out.size(); ++i) out[i] = out[i - 1] * base;
  return out;
}

// Where each item occurs: item i at places[first[i]] .. places[first[i + 1] - 1], by ascending position.
struct Index {
  struct Place {
    std::int64_t position, row;
  };
  std::vector<std::int64_t> first;
  std::vector<Place> places;

  explicit Index(const SequencesView& sequences)
      : first(static_cast<std::size_t>(sequences.num_items) + 2, 0),
        places(static_cast<std::size_t>(sequences.offsets[sequences.rows])) {
    for (std::size_t p = 0; p < places.size(); ++p) ++first[static_cast<std::size_t>(sequences.items[p]) + 1];
    for (std::size_t item = 1; item < first.size(); ++item) first[item] += first[item - 1];
    std::vector<std::int64_t> next(first.begin(), first.end() - 1);
    for (std::int64_t row = 0; row < sequences.rows; ++row)
      for (std::int64_t p = sequences.offsets[row]; p < sequences.offsets[row + 1]; ++p)
        places[static_cast<std::size_t>(next[static_cast<std::size_t>(sequences.items[p])]++)] = {p, row};
  }

  double occurrences(std::int64_t item) const {
    const auto i = static_cast<std::size_t>(item);
    return static_cast<double>(std::max<std::int64_t>(1, first[i + 1] - first[i]));
  }
};

}  // namespace

SparseLists fit_item_knn(const SequencesView& sequences, const ItemKnnFit& settings, int threads) {
  const Index index(sequences);
  std::vector<double> by_item(static_cast<std::size_t>(sequences.num_items) + 1);
  for (std::size_t item = 0; item < by_item.size(); ++item)
    by_item[item] = std::pow(index.occurrences(static_cast<std::int64_t>(item)), -settings.item_exponent);
  const std::vector<double> weight = powers(settings.decay, settings.window);
  return lists_of(sequences.num_items + 1, sequences.num_items, threads, [&](std::int64_t item, Worker& worker) {
    const auto first = static_cast<std::size_t>(item);
    for (std::int64_t i = index.first[first]; i < index.first[first + 1]; ++i) {
      const Index::Place place = index.places[static_cast<std::size_t>(i)];
      const std::int64_t after = sequences.offsets[place.row + 1] - 1 - place.position;
      const std::int64_t before = place.position - sequences.offsets[place.row];
      for (std::int64_t g = 1; g <= std::min<std::int64_t>(settings.window, after); ++g)
        worker.sums.add(sequences.items[place.position + g], weight[static_cast<std::size_t>(g - 1)]);
      if (settings.backward == 0.0) continue;
      for (std::int64_t g = 1; g <= std::min<std::int64_t>(settings.window, before); ++g)
        worker.sums.add(sequences.items[place.position - g],
                        settings.backward * weight[static_cast<std::size_t>(g - 1)]);
    }
    const double own = std::pow(index.occurrences(item), -settings.history_exponent);
    worker.sums.take(worker.entries, [&](std::int32_t other, double sum) {
      return sum * own * by_item[static_cast<std::size_t>(other)];
    });
    keep_largest(worker.entries, settings.neighbours);
  });
}

SparseLists score_histories(const ItemKnnLists& knn, const Histories& histories, const ItemKnnScoring& settings,
                            int threads) {
  std::vector<double> weight(1, 1.0);  // ages whose weight has vanished add nothing
  while (static_cast<std::int64_t>(weight.size()) < settings.newest && weight.back() * settings.decay > 0.0)
    weight.push_back(weight.back() * settings.decay);
  return lists_of(histories.rows, knn.num_items, threads, [&](std::int64_t row, Worker& worker) {
    const std::int64_t begin = histories.begins[row], end = histories.ends[row];
    const auto seen = std::min<std::int64_t>(end - begin, static_cast<std::int64_t>(weight.size()));
    for (std::int64_t age = 0; age < seen; ++age) {
      const std::int64_t item = histories.items[end - 1 - age];
      for (std::int64_t i = knn.offsets[item]; i < knn.offsets[item + 1]; ++i)
        worker.sums.add(knn.ids[i], weight[static_cast<std::size_t>(age)] * static_cast<double>(knn.values[i]));
    }
    if (settings.without_own)
      for (std::int64_t p = begin; p < end; ++p) worker.sums.drop(histories.items[p]);
    double total = 0.0;
    worker.sums.take(worker.entries, [&](std::int32_t, double sum) {
      total += sum;
      return sum;
    });
    for (Entry& entry : worker.entries) entry.second /= total;  // not listed: sums of 0
    keep_largest(worker.entries, settings.most);
  });
}

}  // namespace rsir
