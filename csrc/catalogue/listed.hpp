// Items whose scores are a logit and something added to it: each row lists a few. They are scored apart from the scan,
// in its arithmetic. Included by scan_request.hpp alone.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "catalogue/ops.hpp"

namespace rsir {

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

struct Candidate {
  std::int32_t id = 0;
  float logit = kLowest;
};

bool better(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

// Leaves the k best candidates, in any order.
void keep_best(std::vector<Candidate>& candidates, std::int64_t k) {
  if (static_cast<std::int64_t>(candidates.size()) <= k) return;
  std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(), better);
  candidates.resize(static_cast<std::size_t>(k));
}

// The sum of a logit and what is added; -inf for NaN in either place.
float score_of(float logit, float value) {
  const float sum = (logit > kLowest ? logit : kLowest) + value;
  return sum > kLowest ? sum : kLowest;
}

// What comes before item `own` at `bar` in the order of topk; with own = 0, what scores above the bar.
bool comes_before(float score, std::int32_t id, float bar, std::int32_t own) {
  return score > bar || (score == bar && id < own);
}

// The listed items of one row at a time.
class Listed {
 public:
  Listed(const Table& table, Queries queries, Added added) : table_(table), queries_(queries), added_(added) {}

  void open(std::int64_t row) {
    query_ = queries_.data + row * table_.dim;
    ids_ = added_.ids + added_.offsets[row];
    values_ = added_.values + added_.offsets[row];
    size_ = added_.offsets[row + 1] - added_.offsets[row];
    known_ = 0;
    banned_.clear();
    logits_.resize(static_cast<std::size_t>(size_));
    scores_.resize(static_cast<std::size_t>(size_));
  }

  // What is added to an item of the row, listed or not.
  float value_of(std::int32_t id) const {
    const std::int32_t* place = std::lower_bound(ids_, ids_ + size_, id);
    return place != ids_ + size_ && *place == id ? values_[place - ids_] : 0.0f;
  }

  // Leaves an item out of the best, and of what comes before an own item; whether it is listed.
  bool ban(std::int32_t id) {
    const std::int32_t* place = std::lower_bound(ids_, ids_ + size_, id);
    if (place == ids_ + size_ || *place != id) return false;
    banned_.push_back(place - ids_);
    return true;
  }

  // How many fewer listed items come before item `own` at `bar` with what is added than without; all of them, as far as
  // it matters, when those with it alone are `limit`: then `full`.
  std::int64_t fewer_before(float bar, std::int32_t own, std::int64_t limit, bool& full) {
    std::int64_t with = 0, without = 0;
    full = false;
    for (std::int64_t begin = 0; begin < size_; begin += kAtOnce) {
      const std::int64_t end = std::min(begin + kAtOnce, size_);
      score_up_to(end);
      for (std::int64_t i = begin; i < end; ++i) {
        without += comes_before(logits_[i], ids_[i], bar, own);
        with += comes_before(scores_[i], ids_[i], bar, own);
      }
      if (own)
        for (const std::int64_t i : banned_)
          if (begin <= i && i < end) with -= comes_before(scores_[i], ids_[i], bar, own);
      if (with >= limit) {
        full = true;
        break;
      }
    }
    return without - with;
  }

  // The k best that are not banned, in any order.
  void best(std::int64_t k, std::vector<Candidate>& out) {
    score_up_to(size_);
    for (const std::int64_t i : banned_) scores_[i] = kLowest;
    out.clear();
    for (std::int64_t i = 0; i < size_; ++i)
      if (scores_[i] > kLowest) out.push_back({ids_[i], scores_[i]});
    keep_best(out, k);
  }

 private:
  static constexpr std::int64_t kAtOnce = 32;  // often enough to know that a row is full

  void score_up_to(std::int64_t end) {
    if (known_ >= end) return;
    table_.dots(query_, ids_ + known_, end - known_, logits_.data() + known_);
    for (; known_ < end; ++known_) scores_[known_] = score_of(logits_[known_], values_[known_]);
  }

  const Table& table_;
  const Queries queries_;
  const Added added_;
  const float* query_ = nullptr;
  const std::int32_t* ids_ = nullptr;
  const float* values_ = nullptr;
  std::int64_t size_ = 0, known_ = 0;  // so many are scored
  std::vector<float> logits_, scores_;
  std::vector<std::int64_t> banned_;
};

}  // namespace

}  // namespace rsir
