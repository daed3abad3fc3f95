// A scan of the catalogue for a batch of queries: shares rows, or items where rows are few, out over threads and
// gathers what they found. Included by ops.cpp alone.
#pragma once

#include <algorithm>
#include <limits>

#include "catalogue/ops.hpp"
#include "support/parallel.hpp"

namespace rsir {

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr std::int64_t kLeastRoom = 8;  // a row takes in k more candidates, or this many, before it is cut to k again

std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

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

// Excluded ids ascending within each row; copied only if they were not.
class Ascending {
 public:
  Ascending(Ragged lists, std::int64_t rows) : lists_(lists) {
    if (!lists.offsets) return;
    bool sorted = true;
    for (std::int64_t row = 0; row < rows && sorted; ++row)
      sorted = std::is_sorted(lists.ids + lists.offsets[row], lists.ids + lists.offsets[row + 1]);
    if (sorted) return;
    copy_ = allocate_aligned<std::int32_t>(lists.offsets[rows]);
    copied_ = true;
  }

  void sort_rows(std::int64_t begin, std::int64_t end) {
    if (!copied_) return;
    for (std::int64_t row = begin; row < end; ++row) {
      std::int32_t* to = copy_.get() + lists_.offsets[row];
      std::copy(lists_.ids + lists_.offsets[row], lists_.ids + lists_.offsets[row + 1], to);
      std::sort(to, copy_.get() + lists_.offsets[row + 1]);
    }
  }

  Ragged get() const { return {copied_ ? copy_.get() : lists_.ids, lists_.offsets}; }

 private:
  Ragged lists_;
  Aligned<std::int32_t> copy_;
  bool copied_ = false;
};

// What one scan of some rows over some blocks leaves behind.
struct Found {
  Aligned<std::int64_t> counts, filled;
  Aligned<float> logits;
  Aligned<std::int32_t> ids;
};

struct Scratch {
  Aligned<float> widened, tiles, bar, threshold;
  Aligned<std::int32_t> lanes, row_at, by_own, position_of;
  Aligned<std::int64_t> cursor;
};

// A request for a scan: rank counts, the best k, or both.
class CatalogueScan {
 public:
  CatalogueScan(const Table& table, Queries queries, std::int64_t k, Ragged excluded, Ragged targets,
                std::int64_t tau, int threads)
      : table_(table),
        queries_(queries),
        k_(std::min(k, table.num_items)),
        excluded_(excluded, queries.rows),
        targets_(targets),
        limit_(tau < table.num_items ? tau : std::numeric_limits<std::int64_t>::max()) {
    threads_ = useful_threads(2.0 * static_cast<double>(queries.rows) * static_cast<double>(table.num_items) *
                                  static_cast<double>(table.dim),
                              threads);
    plan();
    if (targets.offsets) {
      bar_ = allocate_aligned<float>(queries.rows);
      skip_ = allocate_aligned<unsigned char>(queries.rows);
    }
  }

  // Instead of targets each row has a logit, and counted is what scores above it. Kept by reference.
  void count_above(const float* bars) {
    given_ = bars;
    bar_ = allocate_aligned<float>(queries_.rows);
    skip_ = allocate_aligned<unsigned char>(queries_.rows);
  }

  // Instead of targets each row has one item of its own, in 1..num_items: counted is what comes before it in the order
  // of topk, the excluded ids left out (not the own one). Rows whose own item is at -inf count as without targets.
  void compete(const std::int32_t* own) {
    own_ = own;
    bar_ = allocate_aligned<float>(queries_.rows);
    skip_ = allocate_aligned<unsigned char>(queries_.rows);
    ahead_ = allocate_aligned<std::int32_t>(queries_.rows);
  }

  // done(row, count, best): count is -1 for a row without targets; best are its k best candidates in any order.
  template <class Done>
  void run(Done done) {
    if (queries_.rows == 0) return;
    const std::int64_t panels = (queries_.rows + panel_rows_ - 1) / panel_rows_;
    std::vector<Scratch> scratch(static_cast<std::size_t>(threads_));
    if (splits_ == 1) {
      std::vector<Found> found(static_cast<std::size_t>(threads_));
      parallel_for(panels, threads_, [&](std::int64_t panel, int worker) {
        const std::int64_t begin = panel * panel_rows_, end = std::min(begin + panel_rows_, queries_.rows);
        prepare(begin, end);
        scan(begin, end, 0, table_.blocks, found[worker], scratch[worker]);
        finish(begin, end, &found[worker], 1, done);
      });
      return;
    }
    prepare(0, queries_.rows);
    std::vector<Found> found(static_cast<std::size_t>(panels * splits_));
    parallel_for(panels * splits_, threads_, [&](std::int64_t task, int worker) {
      const std::int64_t begin = task / splits_ * panel_rows_, split = task % splits_;
      scan(begin, std::min(begin + panel_rows_, queries_.rows), table_.blocks * split / splits_,
           table_.blocks * (split + 1) / splits_, found[task], scratch[worker]);
    });
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const std::int64_t begin = panel * panel_rows_;
      finish(begin, std::min(begin + panel_rows_, queries_.rows), &found[panel * splits_], splits_, done);
    }
  }

 private:
  // Rows of a panel stay in the second-level cache beside a block of items. Few rows: split the items.
  void plan() {
    const std::int64_t height = table_.unit.height;
    std::int64_t most = std::clamp<std::int64_t>(65536 / table_.dim, 2 * height, 448);
    if (k_ > 0) {
      const std::int64_t room = std::min(std::max(k_, kLeastRoom), table_.num_items - k_);
      slots_ = round_up(k_ + room + table_.unit.width, 16);
      most = std::clamp<std::int64_t>((std::int64_t{1} << 20) / slots_, height, most);
    }
    splits_ = 1;
    if (threads_ > 1 && queries_.rows < 8 * height * threads_) {
      splits_ = std::min<std::int64_t>(threads_, table_.blocks);
      panel_rows_ = std::min(round_up(queries_.rows, height), round_up(most, height));
      return;
    }
    const std::int64_t turns = std::max<std::int64_t>(1, (queries_.rows + threads_ * most - 1) / (threads_ * most));
    const std::int64_t panels = threads_ * turns;
    panel_rows_ = std::max<std::int64_t>(height, round_up((queries_.rows + panels - 1) / panels, height));
  }

  // The best target logit of each row, in the arithmetic of the scan, and ascending excluded ids.
  void prepare(std::int64_t begin, std::int64_t end) {
    excluded_.sort_rows(begin, end);
    if (own_) return prepare_own(begin, end);
    if (given_) {
      std::copy(given_ + begin, given_ + end, bar_.get() + begin);
      std::fill(skip_.get() + begin, skip_.get() + end, static_cast<unsigned char>(0));
      return;
    }
    if (!targets_.offsets) return;
    std::vector<float> logits;
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t from = targets_.offsets[row], n = targets_.offsets[row + 1] - from;
      skip_[row] = n == 0;
      bar_[row] = kLowest;
      logits.resize(static_cast<std::size_t>(n));
      table_.dots(queries_.data + row * table_.dim, targets_.ids + from, n, logits.data());
      for (const float logit : logits)
        if (logit > bar_[row]) bar_[row] = logit;  // false for NaN
    }
  }

  // The logit of each row's own item, and how many excluded ids come before it.
  void prepare_own(std::int64_t begin, std::int64_t end) {
    const Ragged excluded = excluded_.get();
    std::vector<float> logits;
    const auto score = [&](std::int64_t row, const std::int32_t* ids, std::int64_t n, float* out) {
      table_.dots(queries_.data + row * table_.dim, ids, n, out);
    };
    for (std::int64_t row = begin; row < end; ++row) {
      score(row, own_ + row, 1, &bar_[row]);
      skip_[row] = !(bar_[row] > kLowest);  // NaN, too
      ahead_[row] = 0;
      if (skip_[row] || !excluded.offsets) continue;
      const std::int32_t* ids = excluded.ids + excluded.offsets[row];
      const std::int64_t n = excluded.offsets[row + 1] - excluded.offsets[row];
      logits.resize(static_cast<std::size_t>(n));
      score(row, ids, n, logits.data());
      for (std::int64_t i = 0; i < n; ++i) {
        const bool counted = ids[i] != own_[row] && (i == 0 || ids[i] != ids[i - 1]);
        ahead_[row] += counted && (logits[i] > bar_[row] || (logits[i] == bar_[row] && ids[i] < own_[row]));
      }
    }
  }

  void scan(std::int64_t begin, std::int64_t end, std::int64_t block_begin, std::int64_t block_end, Found& found,
            Scratch& scratch) const {
    const std::int64_t rows = panel_rows_;  // a multiple of the tile height
    if (!scratch.tiles) {
      if (table_.half_panels()) scratch.widened = allocate_aligned<float>(table_.unit.width * table_.dim);
      scratch.tiles = allocate_aligned<float>(rows * table_.dim);
      scratch.lanes = allocate_aligned<std::int32_t>(rows * 16);
      scratch.bar = allocate_aligned<float>(rows);
      scratch.threshold = allocate_aligned<float>(rows);
      scratch.row_at = allocate_aligned<std::int32_t>(rows);
      scratch.cursor = allocate_aligned<std::int64_t>(rows);
    }
    if (counting() && !found.counts) found.counts = allocate_aligned<std::int64_t>(rows);
    if (k_ > 0 && !found.filled) {
      found.filled = allocate_aligned<std::int64_t>(rows);
      found.logits = allocate_aligned<float>(rows * slots_);
      found.ids = allocate_aligned<std::int32_t>(rows * slots_);
    }
    const Ragged excluded = excluded_.get();
    ScanArgs args{};
    args.panels = table_.panels();
    args.half_panels = table_.half_panels();
    args.widened = scratch.widened.get();
    args.dim = table_.dim;
    args.block_begin = block_begin;
    args.block_end = block_end;
    args.queries = queries_.data + begin * table_.dim;
    args.num_rows = end - begin;
    if (counting()) {
      args.skip = skip_.get() + begin;
      args.target = bar_.get() + begin;
      args.counts = found.counts.get();
    }
    if (own_) {
      if (!scratch.by_own) {
        scratch.by_own = allocate_aligned<std::int32_t>(rows);
        scratch.position_of = allocate_aligned<std::int32_t>(rows);
      }
      std::int32_t* order = scratch.by_own.get();
      const std::int32_t* own = own_ + begin;
      for (std::int32_t row = 0; row < end - begin; ++row) order[row] = row;
      std::sort(order, order + (end - begin), [own](std::int32_t a, std::int32_t b) { return own[a] < own[b]; });
      args.own = own;
      args.ahead = ahead_.get() + begin;
      args.by_own = order;
      args.position_of = scratch.position_of.get();
    }
    args.limit = limit_;
    args.k = k_;
    if (excluded.offsets && k_ > 0) {
      args.excluded = excluded.ids;
      args.excluded_offsets = excluded.offsets + begin;
    }
    args.top_logits = found.logits.get();
    args.top_ids = found.ids.get();
    args.slots = slots_;
    args.filled = found.filled.get();
    args.tiles = scratch.tiles.get();
    args.lanes = scratch.lanes.get();
    args.bar = scratch.bar.get();
    args.threshold = scratch.threshold.get();
    args.row_at = scratch.row_at.get();
    args.cursor = scratch.cursor.get();
    table_.unit.scan(args);
  }

  template <class Done>
  void finish(std::int64_t begin, std::int64_t end, const Found* found, std::int64_t parts, Done& done) const {
    std::vector<Candidate> best;
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t local = row - begin;
      std::int64_t count = 0;
      if (counting()) {
        for (std::int64_t part = 0; part < parts; ++part) count += found[part].counts[local];
        if (own_) count += (parts - 1) * ahead_[row];  // every part began below zero
        if (skip_[row]) count = -1;
      }
      best.clear();
      if (k_ > 0 && count >= 0 && count < limit_) {
        for (std::int64_t part = 0; part < parts; ++part)
          for (std::int64_t i = local * slots_; i < local * slots_ + found[part].filled[local]; ++i)
            best.push_back({found[part].ids[i], found[part].logits[i]});
        keep_best(best, k_);
      }
      done(row, count, best);
    }
  }

  bool counting() const { return targets_.offsets || own_ || given_; }

  const Table& table_;
  const Queries queries_;
  const std::int64_t k_;
  Ascending excluded_;
  const Ragged targets_;
  const std::int64_t limit_;
  int threads_ = 1;
  std::int64_t splits_ = 1, panel_rows_ = 0, slots_ = 0;
  const std::int32_t* own_ = nullptr;
  const float* given_ = nullptr;
  Aligned<float> bar_;
  Aligned<unsigned char> skip_;
  Aligned<std::int32_t> ahead_;
};

}  // namespace

}  // namespace rsir
