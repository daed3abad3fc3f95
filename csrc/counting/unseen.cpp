#include "counting/unseen.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/parallel.hpp"

namespace rsir {

namespace {

// Values are float32, so that a difference of two may be off by less than this share of them.
constexpr double kTie = 1e-6;

struct Span {
  const std::int32_t* first;
  const std::int32_t* last;

  std::int64_t size() const { return last - first; }
  std::int64_t count(std::int32_t item) const { return std::count(first, last, item); }
};

Span span_of(const IdLists& lists, std::int64_t row) {
  return {lists.ids + lists.offsets[row], lists.ids + lists.offsets[row + 1]};
}

class Judge {
 public:
  Judge(const ItemKnnLists& knn, const std::int64_t* occurrences, const UnseenSettings& settings)
      : knn_(knn), occurrences_(occurrences), settings_(settings), sums_(static_cast<std::size_t>(knn.num_items) + 1) {
    double weight = 1.0;
    for (int g = 0; g < settings.fit.window; ++g, weight *= settings.fit.decay) by_gap_.push_back(weight);
  }

  std::int64_t rank(const Span& own, const Span& history, const Span& targets) {
    touched_.clear();
    const std::int64_t seen = std::min(history.size(), settings_.newest);
    double weight = 1.0;
    for (std::int64_t age = 0; age < seen && weight > 0.0; ++age, weight *= settings_.age_decay)
      add(*(history.last - 1 - age), weight, own);
    for (const std::int32_t* item = own.first; item != own.last; ++item)
      if (sums_[at(*item)] > 0.0) sums_[at(*item)] = score(*item, seen, own, history);
    for (const std::int32_t* item = history.first; item != history.last; ++item) sums_[at(*item)] = 0.0;
    const std::int64_t found = place(targets);
    for (const std::int32_t item : touched_) sums_[at(item)] = 0.0;
    return found;
  }

 private:
  static std::size_t at(std::int32_t item) { return static_cast<std::size_t>(item); }

  // What the item's occurrences in other sequences come to, to the power of -exponent; 0 where there are none.
  double factor(std::int32_t item, std::int64_t taken, double exponent) const {
    const std::int64_t left = occurrences_[item] - taken;
    return left > 0 ? std::pow(static_cast<double>(left), -exponent) : 0.0;
  }

  double before(std::int32_t item, double exponent) const {
    return std::pow(static_cast<double>(std::max<std::int64_t>(1, occurrences_[item])), exponent);
  }

  // Adds the scores by one item of the history; those of the row's own items are only marked, and made anew.
  void add(std::int32_t item, double weight, const Span& own) {
    const std::int64_t taken = own.count(item);
    const double exponent = settings_.fit.history_exponent;
    if (taken > 0) weight *= factor(item, taken, exponent) * before(item, exponent);
    if (weight == 0.0) return;
    for (std::int64_t i = knn_.offsets[item]; i < knn_.offsets[item + 1]; ++i) {
      double& sum = sums_[at(knn_.ids[i])];
      if (sum == 0.0) touched_.push_back(knn_.ids[i]);
      sum += weight * static_cast<double>(knn_.values[i]);
    }
  }

  // The score of one of the row's own items, from pairs of other sequences alone.
  double score(std::int32_t item, std::int64_t seen, const Span& own, const Span& history) const {
    const double mine = factor(item, own.count(item), settings_.fit.item_exponent);
    const double all = before(item, settings_.fit.item_exponent);
    double sum = 0.0, weight = 1.0;
    for (std::int64_t age = 0; age < seen; ++age, weight *= settings_.age_decay) {
      const std::int32_t other = *(history.last - 1 - age);
      const std::int32_t* const end = knn_.ids + knn_.offsets[other + 1];
      const std::int32_t* const entry = std::lower_bound(knn_.ids + knn_.offsets[other], end, item);
      if (entry == end || *entry != item) continue;
      const double exponent = settings_.fit.history_exponent;
      const double counted = static_cast<double>(knn_.values[entry - knn_.ids]) * before(other, exponent) * all;
      const double left = counted - pairs(other, item, own);
      if (left > kTie * counted) sum += weight * left * factor(other, own.count(other), exponent) * mine;
    }
    return sum;
  }

  // What a sequence has counted for one item before another.
  double pairs(std::int32_t item, std::int32_t other, const Span& own) const {
    double sum = 0.0;
    for (const std::int32_t* one = own.first; one != own.last; ++one) {
      if (*one != item) continue;
      for (std::size_t g = 1; g <= by_gap_.size(); ++g) {
        const auto gap = static_cast<std::ptrdiff_t>(g);
        if (gap < own.last - one && one[gap] == other) sum += by_gap_[g - 1];
        if (gap <= one - own.first && one[-gap] == other) sum += settings_.fit.backward * by_gap_[g - 1];
      }
    }
    return sum;
  }

  std::int64_t place(const Span& targets) {
    double best = 0.0;
    for (const std::int32_t* item = targets.first; item != targets.last; ++item)
      best = std::max(best, sums_[at(*item)]);
    if (best == 0.0) return settings_.tau + 1;
    const double high = best * (1.0 + kTie), low = best * (1.0 - kTie);
    auto first = static_cast<std::int32_t>(knn_.num_items);
    for (const std::int32_t* item = targets.first; item != targets.last; ++item)
      if (sums_[at(*item)] >= low) first = std::min(first, *item);
    for (const std::int32_t* item = targets.first; item != targets.last; ++item) sums_[at(*item)] = 0.0;
    std::int64_t above = 0;
    for (const std::int32_t item : touched_) {
      double& sum = sums_[at(item)];
      above += sum > high || (sum >= low && item < first);
      sum = 0.0;  // an item may be touched twice
    }
    return std::min(above, settings_.tau) + 1;
  }

  const ItemKnnLists& knn_;
  const std::int64_t* occurrences_;
  const UnseenSettings& settings_;
  std::vector<double> by_gap_, sums_;
  std::vector<std::int32_t> touched_;
};

}  // namespace

void ranks_unseen(const ItemKnnLists& knn, const std::int64_t* occurrences, std::int64_t rows, const IdLists& own,
                  const IdLists& histories, const IdLists& targets, const UnseenSettings& settings, int threads,
                  std::int64_t* ranks) {
  constexpr std::int64_t kBlock = 64;  // rows of a task
  const std::int64_t blocks = (rows + kBlock - 1) / kBlock;
  threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, blocks)));
  std::vector<Judge> judges;
  for (int worker = 0; worker < threads; ++worker) judges.emplace_back(knn, occurrences, settings);
  parallel_for(blocks, threads, [&](std::int64_t block, int worker) {
    for (std::int64_t row = block * kBlock; row < std::min(rows, (block + 1) * kBlock); ++row)
      ranks[row] = judges[static_cast<std::size_t>(worker)].rank(span_of(own, row), span_of(histories, row),
                                                                 span_of(targets, row));
  });
}

}  // namespace rsir
