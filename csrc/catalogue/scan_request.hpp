// A scan of the catalogue for a batch of queries: shares rows, or items where rows are few, out over threads and
// gathers what they found. Included by ops.cpp alone.
#pragma once

#include <algorithm>
#include <limits>

#include "catalogue/listed.hpp"
#include "catalogue/ops.hpp"
#include "catalogue/screening.hpp"
#include "support/parallel.hpp"

namespace rsir {

namespace {

constexpr std::int64_t kLeastRoom = 8;  // a row takes in k more candidates, or this many, before it is cut to k again

std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

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
  Screening screening;
};

// A request for a scan: rank counts, the best k, or both.
class CatalogueScan {
 public:
  CatalogueScan(const Table& table, Queries queries, std::int64_t k, Ragged excluded, Ragged targets,
                std::int64_t tau, int threads, Added added)
      : table_(table),
        queries_(queries),
        k_(std::min(k, table.num_items)),
        excluded_(excluded, queries.rows),
        targets_(targets),
        added_(added),
        limit_(tau < table.num_items ? tau : std::numeric_limits<std::int64_t>::max()) {
    threads_ = useful_threads(2.0 * static_cast<double>(queries.rows) * static_cast<double>(table.num_items) *
                                  static_cast<double>(table.dim),
                              threads);
    plan();
    if (k_ <= Screening::kMostK) codes_ = table.codes_for(queries.rows);
    if (targets.offsets) allocate_bars();
    if (added.offsets && k_ > 0) allocate_listed();
  }

  // Instead of targets each row has a logit, and counted is what scores above it. Kept by reference.
  void count_above(const float* bars) {
    given_ = bars;
    allocate_bars();
  }

  // Instead of targets each row has one item of its own, in 1..num_items: counted is what comes before it in the order
  // of topk, the excluded ids left out (not the own one). Rows whose own item is at -inf count as without targets.
  void compete(const std::int32_t* own) {
    own_ = own;
    allocate_bars();
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
  static constexpr unsigned char kNothing = 1, kFull = 2;  // no scan: nothing is counted; the limit is reached

  void allocate_bars() {
    bar_ = allocate_aligned<float>(queries_.rows);
    skip_ = allocate_aligned<unsigned char>(queries_.rows);
    if (own_ || added_.offsets) ahead_ = allocate_aligned<std::int32_t>(queries_.rows);
  }

  // Room for the best listed items of each row, and for all ids that its scan leaves out.
  void allocate_listed() {
    const std::int64_t rows = queries_.rows;
    const Ragged excluded = excluded_.get();
    left_out_offsets_.resize(static_cast<std::size_t>(rows) + 1);
    std::int64_t longest = 0;
    for (std::int64_t row = 0; row <= rows; ++row) {
      left_out_offsets_[row] = added_.offsets[row] + (excluded.offsets ? excluded.offsets[row] : 0);
      if (row > 0) longest = std::max(longest, added_.offsets[row] - added_.offsets[row - 1]);
    }
    left_out_ = allocate_aligned<std::int32_t>(left_out_offsets_[rows]);
    room_ = std::min(k_, longest);
    listed_ = allocate_aligned<Candidate>(rows * room_);
    num_listed_ = allocate_aligned<std::int64_t>(rows);
    least_ = allocate_aligned<float>(rows);
  }

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

  // What the scan of some rows needs: ascending excluded ids; the logit that each row counts above; the scores of its
  // listed items.
  void prepare(std::int64_t begin, std::int64_t end) {
    excluded_.sort_rows(begin, end);
    const Ragged excluded = excluded_.get();
    Listed listed(table_, queries_, added_);
    std::vector<float> logits;
    std::vector<std::int32_t> unlisted;  // excluded ids, each once
    std::vector<Candidate> best;
    for (std::int64_t row = begin; row < end; ++row) {
      const bool adding = added_.offsets != nullptr;
      if (adding) listed.open(row);
      if (counting()) {
        bar_[row] = bar_of(row, listed, logits);
        skip_[row] = nothing_to_count(row) ? kNothing : 0;
        if (ahead_) ahead_[row] = 0;
      }
      if (excluded.offsets && (own_ || (adding && k_ > 0))) {
        unlisted.clear();
        for (std::int64_t i = excluded.offsets[row]; i < excluded.offsets[row + 1]; ++i) {
          const std::int32_t id = excluded.ids[i];
          const bool again = i > excluded.offsets[row] && id == excluded.ids[i - 1];
          if (!again && !(adding && listed.ban(id))) unlisted.push_back(id);
        }
      }
      if (counting() && skip_[row]) continue;
      if (own_ && !unlisted.empty()) {
        logits.resize(unlisted.size());
        dots(row, unlisted.data(), unlisted.size(), logits.data());
        for (std::size_t i = 0; i < unlisted.size(); ++i)
          ahead_[row] += comes_before(logits[i], unlisted[i], bar_[row], own_[row]);
      }
      if (!adding) continue;
      if (counting()) {
        bool full = false;
        ahead_[row] += static_cast<std::int32_t>(listed.fewer_before(bar_[row], own_ ? own_[row] : 0, limit_, full));
        if (full) skip_[row] = kFull;
        if (full) continue;
      }
      if (k_ > 0) keep_listed(row, listed, unlisted, best);
    }
  }

  bool nothing_to_count(std::int64_t row) const {
    if (own_) return !(bar_[row] > kLowest);
    return targets_.offsets && targets_.offsets[row] == targets_.offsets[row + 1];
  }

  // The logit above which a row counts; -inf where there is nothing to count above.
  float bar_of(std::int64_t row, Listed& listed, std::vector<float>& logits) const {
    if (given_) return given_[row];
    const std::int32_t* ids = own_ ? own_ + row : targets_.ids + targets_.offsets[row];
    const std::int64_t n = own_ ? 1 : targets_.offsets[row + 1] - targets_.offsets[row];
    logits.resize(static_cast<std::size_t>(n));
    dots(row, ids, logits.size(), logits.data());
    float bar = kLowest;
    for (std::int64_t i = 0; i < n; ++i) {
      const float score = added_.offsets ? score_of(logits[i], listed.value_of(ids[i])) : logits[i];
      if (score > bar) bar = score;  // false for NaN
    }
    return bar;
  }

  // Keeps the best listed items of a row, and all that its scan leaves out: them and the excluded ones.
  void keep_listed(std::int64_t row, Listed& listed, const std::vector<std::int32_t>& unlisted,
                   std::vector<Candidate>& best) {
    listed.best(k_, best);
    std::copy(best.begin(), best.end(), listed_.get() + row * room_);
    num_listed_[row] = static_cast<std::int64_t>(best.size());
    least_[row] = kLowest;
    if (num_listed_[row] == k_) least_[row] = std::max_element(best.begin(), best.end(), better)->logit;
    std::int32_t* to = left_out_.get() + left_out_offsets_[row];
    const std::int32_t* ids = added_.ids + added_.offsets[row];
    to = std::merge(ids, added_.ids + added_.offsets[row + 1], unlisted.begin(), unlisted.end(), to);
    // as many places as with the ids that were listed or excluded twice
    std::fill(to, left_out_.get() + left_out_offsets_[row + 1], std::numeric_limits<std::int32_t>::max());
  }

  void dots(std::int64_t row, const std::int32_t* ids, std::size_t n, float* out) const {
    table_.dots(queries_.data + row * table_.dim, ids, static_cast<std::int64_t>(n), out);
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
      args.by_own = order;
      args.position_of = scratch.position_of.get();
    }
    if (ahead_) args.ahead = ahead_.get() + begin;
    args.limit = limit_;
    args.k = k_;
    if (left_out_) {
      args.excluded = left_out_.get();
      args.excluded_offsets = left_out_offsets_.data() + begin;
      args.least = least_.get() + begin;
    } else if (excluded.offsets && k_ > 0) {
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
    if (!codes_ || own_ || scratch.screening.answer(table_, *codes_, args)) table_.unit.scan(args);
  }

  template <class Done>
  void finish(std::int64_t begin, std::int64_t end, const Found* found, std::int64_t parts, Done& done) const {
    std::vector<Candidate> best;
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t local = row - begin;
      std::int64_t count = 0;
      if (counting()) {
        if (skip_[row])
          count = skip_[row] == kFull ? limit_ : -1;
        else
          for (std::int64_t part = 0; part < parts; ++part) count += found[part].counts[local];
        if (ahead_ && !skip_[row]) count += (parts - 1) * ahead_[row];  // every part began at -ahead
      }
      best.clear();
      if (k_ > 0 && count >= 0 && count < limit_) {
        for (std::int64_t part = 0; part < parts; ++part)
          for (std::int64_t i = local * slots_; i < local * slots_ + found[part].filled[local]; ++i)
            best.push_back({found[part].ids[i], found[part].logits[i]});
        if (listed_) {
          const Candidate* own = listed_.get() + row * room_;
          best.insert(best.end(), own, own + num_listed_[row]);
        }
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
  const Added added_;
  const std::int64_t limit_;
  const Codes* codes_ = nullptr;
  int threads_ = 1;
  std::int64_t splits_ = 1, panel_rows_ = 0, slots_ = 0;
  const std::int32_t* own_ = nullptr;
  const float* given_ = nullptr;
  Aligned<float> bar_;
  Aligned<unsigned char> skip_;
  Aligned<std::int32_t> ahead_;
  std::vector<std::int64_t> left_out_offsets_;
  Aligned<std::int32_t> left_out_;
  std::int64_t room_ = 0;
  Aligned<Candidate> listed_;
  Aligned<std::int64_t> num_listed_;
  Aligned<float> least_;
};

}  // namespace

}  // namespace rsir
