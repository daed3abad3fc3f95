#include "counting/item_knn.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "support/parallel.hpp"

namespace rsir {

namespace {

struct Block {  // entries of several lists
  std::vector<std::int32_t> ids;
  std::vector<float> values;
};

// A sum for each item, of which few are not 0: those are listed.
class Sums {
 public:
  explicit Sums(std::int64_t num_items)
      : sums_(static_cast<std::size_t>(num_items) + 1, 0.0),
        touched_(static_cast<std::size_t>(num_items) + 2),
        chosen_(static_cast<std::size_t>(num_items) / 64 + 1, 0),
        groups_(chosen_.size() / 64 + 1, 0) {}

  void add(std::int32_t item, double weight) {  // weight >= 0
    double& sum = sums_[static_cast<std::size_t>(item)];
    touched_[size_] = item;
    size_ += sum == 0.0 && weight != 0.0;
    sum += weight;
  }

  void drop(std::int32_t item) { sums_[static_cast<std::size_t>(item)] = 0.0; }

  template <class Value>
  void change(Value value) {
    for (std::size_t i = 0; i < size_; ++i) {
      double& sum = sums_[static_cast<std::size_t>(touched_[i])];
      sum = value(touched_[i], sum);
    }
  }

  // Divides all sums by their total.
  void normalise() {
    const double all = total();
    if (all > 0.0) change([all](std::int32_t, double sum) { return sum / all; });
  }

  // Appends the `most` items of the largest sums that are not 0, by ascending id; ties: the lower id. All are 0 again.
  void take(std::int64_t most, Block& out) {
    choose(most);
    for (std::size_t group = 0; group < groups_.size(); ++group)
      for (; groups_[group]; groups_[group] &= groups_[group] - 1) {
        const std::size_t word = group * 64 + static_cast<std::size_t>(__builtin_ctzll(groups_[group]));
        for (; chosen_[word]; chosen_[word] &= chosen_[word] - 1) {
          const std::size_t item = word * 64 + static_cast<std::size_t>(__builtin_ctzll(chosen_[word]));
          out.ids.push_back(static_cast<std::int32_t>(item));
          out.values.push_back(static_cast<float>(sums_[item]));
        }
      }
    for (std::size_t i = 0; i < size_; ++i) sums_[static_cast<std::size_t>(touched_[i])] = 0.0;
    size_ = 0;
  }

 private:
  // Sums from 2^-24 to 2^8 fall into buckets, 32 to each power of two; what is less or more, into the outer ones.
  static constexpr int kBuckets = 1024;
  static int bucket_of(double sum) {
    std::int64_t bits;
    std::memcpy(&bits, &sum, sizeof bits);
    return static_cast<int>(std::clamp<std::int64_t>((bits >> 47) - (1023 - 24) * 32, 0, kBuckets - 1));
  }

  void mark(std::int32_t item) {
    const auto word = static_cast<std::size_t>(item) / 64;
    chosen_[word] |= std::uint64_t{1} << (item % 64);
    groups_[word / 64] |= std::uint64_t{1} << (word % 64);
  }

  // Alone, for its sum to stay in a register.
  __attribute__((noinline)) double total() const {
    double total = 0.0;
    for (std::size_t i = 0; i < size_; ++i) total += sums_[static_cast<std::size_t>(touched_[i])];
    return total;
  }

  // Marks all in the buckets above one, and the best of that one: nth_element of all took as long as the rest together.
  void choose(std::int64_t most) {
    std::int64_t counts[kBuckets] = {}, above = 0, size = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      const double sum = sums_[static_cast<std::size_t>(touched_[i])];
      counts[bucket_of(sum)] += sum != 0.0;
      size += sum != 0.0;
    }
    int last = size > most ? kBuckets - 1 : -1;
    for (; last > 0 && above + counts[last] < most; --last) above += counts[last];
    between_.clear();
    for (std::size_t i = 0; i < size_; ++i) {
      const std::int32_t item = touched_[i];
      const double sum = sums_[static_cast<std::size_t>(item)];
      const int bucket = bucket_of(sum);
      if (sum == 0.0) continue;
      if (bucket > last) mark(item);
      if (bucket == last) between_.emplace_back(item, sum);
    }
    if (last < 0) return;
    const auto end = between_.begin() + (most - above);
    std::nth_element(between_.begin(), end - 1, between_.end(), [](const Entry& a, const Entry& b) {
      return a.second != b.second ? a.second > b.second : a.first < b.first;
    });
    for (auto entry = between_.begin(); entry != end; ++entry) mark(entry->first);
  }

  using Entry = std::pair<std::int32_t, double>;
  std::vector<double> sums_;
  std::vector<std::int32_t> touched_;
  std::size_t size_ = 0;  // so many are touched, each once
  std::vector<std::uint64_t> chosen_, groups_;  // a bit an item, and a bit a word of those
  std::vector<Entry> between_;
};

constexpr std::int64_t kBlock = 64;  // lists of a task

// Calls make(list, sums, block) for every list, which appends its entries to the block's.
template <class Make>
SparseLists lists_of(std::int64_t count, std::int64_t num_items, int threads, Make make) {
  const std::int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<Block> made(static_cast<std::size_t>(blocks));
  SparseLists out;
  out.offsets.assign(static_cast<std::size_t>(count) + 1, 0);
  threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, blocks)));
  std::vector<Sums> workers;
  for (int worker = 0; worker < threads; ++worker) workers.emplace_back(num_items);
  parallel_for(blocks, threads, [&](std::int64_t block, int number) {
    Block own;
    for (std::int64_t list = block * kBlock; list < std::min(count, (block + 1) * kBlock); ++list) {
      const std::size_t before = own.ids.size();
      make(list, workers[static_cast<std::size_t>(number)], own);
      out.offsets[static_cast<std::size_t>(list) + 1] = static_cast<std::int64_t>(own.ids.size() - before);
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
  const auto list = [&](std::int64_t item, Sums& sums, Block& out) {
    const auto first = static_cast<std::size_t>(item);
    for (std::int64_t i = index.first[first]; i < index.first[first + 1]; ++i) {
      const Index::Place place = index.places[static_cast<std::size_t>(i)];
      const std::int64_t after = sequences.offsets[place.row + 1] - 1 - place.position;
      const std::int64_t before = place.position - sequences.offsets[place.row];
      for (std::int64_t g = 1; g <= std::min<std::int64_t>(settings.window, after); ++g)
        sums.add(sequences.items[place.position + g], weight[static_cast<std::size_t>(g - 1)]);
      if (settings.backward == 0.0) continue;
      for (std::int64_t g = 1; g <= std::min<std::int64_t>(settings.window, before); ++g)
        sums.add(sequences.items[place.position - g],
                 settings.backward * weight[static_cast<std::size_t>(g - 1)]);
    }
    const double own = std::pow(index.occurrences(item), -settings.history_exponent);
    sums.change(
        [&](std::int32_t other, double sum) { return sum * own * by_item[static_cast<std::size_t>(other)]; });
    sums.take(settings.neighbours, out);
  };
  return lists_of(sequences.num_items + 1, sequences.num_items, threads, list);
}

SparseLists score_histories(const ItemKnnLists& knn, const Histories& histories, const ItemKnnScoring& settings,
                            int threads) {
  std::int64_t ages = 0;  // of the longest history
  for (std::int64_t row = 0; row < histories.rows; ++row)
    ages = std::max(ages, histories.ends[row] - histories.begins[row]);
  ages = std::min(ages, settings.newest);
  std::vector<double> weight(1, 1.0);  // ages whose weight has vanished add nothing
  while (static_cast<std::int64_t>(weight.size()) < ages && weight.back() * settings.decay > 0.0)
    weight.push_back(weight.back() * settings.decay);
  return lists_of(histories.rows, knn.num_items, threads, [&](std::int64_t row, Sums& sums, Block& out) {
    const std::int64_t begin = histories.begins[row], end = histories.ends[row];
    const auto seen = std::min<std::int64_t>(end - begin, static_cast<std::int64_t>(weight.size()));
    for (std::int64_t age = 0; age < seen; ++age) {
      const std::int64_t item = histories.items[end - 1 - age];
      for (std::int64_t i = knn.offsets[item]; i < knn.offsets[item + 1]; ++i)
        sums.add(knn.ids[i], weight[static_cast<std::size_t>(age)] * static_cast<double>(knn.values[i]));
    }
    if (settings.without_own)
      for (std::int64_t p = begin; p < end; ++p) sums.drop(histories.items[p]);
    sums.normalise();
    sums.take(settings.most, out);
  });
}

}  // namespace rsir
