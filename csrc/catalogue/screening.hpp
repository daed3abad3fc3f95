// Answers of a scan that codes of eight bits can prove: they say which few items have to be scored exactly, and these
// decide. What is answered has the bits of the scan. Included by scan_request.hpp alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "catalogue/listed.hpp"
#include "isa/screen.hpp"

namespace rsir {

namespace {

// The screens of one thread, one after the other.
class Screening {
 public:
  static constexpr std::int64_t kMostK = 512;  // of more the best are too close together

  // Answers rows of a scan of a table whose blocks are those of its codes, and leaves it with the others to skip those;
  // whether any is left.
  bool answer(const Table& table, const Codes& codes, ScanArgs& scan) {
    constexpr std::int64_t kFirst = 64;
    reserve(scan, codes.quads);
    for (std::int64_t row = 0; row < scan.num_rows; ++row) answered_[row] = scan.skip && scan.skip[row];
    bool left = false;
    for (std::int64_t begin = 0, end; begin < scan.num_rows; begin = end) {
      if (failed_ > tried_ / 2 && tried_ >= kFirst / 2) {  // ranks so far down take too many exact logits
        left = true;
        break;
      }
      end = tried_ < kFirst ? std::min(begin + kFirst, scan.num_rows) : scan.num_rows;
      left |= answer(table, codes, rows_of(scan, begin, end), answered_.get() + begin);
    }
    scan.skip = answered_.get();
    return left;
  }

 private:
  static ScanArgs rows_of(ScanArgs scan, std::int64_t begin, std::int64_t end) {
    scan.num_rows = end - begin;
    scan.queries += begin * scan.dim;
    if (scan.target) {
      scan.target += begin;
      scan.counts += begin;
    }
    if (scan.ahead) scan.ahead += begin;
    if (scan.k > 0) {
      if (scan.least) scan.least += begin;
      if (scan.excluded) scan.excluded_offsets += begin;
      scan.top_logits += begin * scan.slots;
      scan.top_ids += begin * scan.slots;
      scan.filled += begin;
    }
    return scan;
  }

  bool answer(const Table& table, const Codes& codes, const ScanArgs& scan, unsigned char* answered) {
    ScreenArgs args = arguments(table, codes, scan);
    const bool counting = scan.target != nullptr;
    for (std::int64_t row = 0; row < scan.num_rows; ++row) {
      skip_[row] = answered[row];
      if (skip_[row]) continue;
      CodedQuery query;
      skip_[row] = (counting && !std::isfinite(scan.target[row])) ||
                   !codes.code(scan.queries + row * scan.dim, queries_.get() + row * codes.quads * 4, query);
      if (skip_[row]) continue;
      if (counting) {
        maybe_[row] = query.below(scan.target[row]);
        sure_[row] = query.above(scan.target[row]);
      }
      if (scan.k > 0) {
        const bool bound = scan.least && std::isfinite(scan.least[row]);
        least_[row] = bound ? query.below(scan.least[row]) : std::numeric_limits<std::int32_t>::min();
        slack_[row] = query.slack();
      }
    }
    Exactly exactly{table, scan, {}};
    args.count_exactly = &Exactly::count;
    args.context = &exactly;
    table.unit.screen(args);
    std::int64_t done = 0;
    bool left = false;
    for (std::int64_t row = 0; row < scan.num_rows; ++row) {
      if (answered[row]) continue;
      if (skip_[row]) {
        left = true;
        continue;
      }
      ++tried_;
      failed_ += gave_up_[row];
      left |= gave_up_[row];
      answered[row] = !gave_up_[row];
      done += answered[row];
      if (answered[row] && scan.k > 0)
        keep(table, scan, row, counting && scan.counts[row] >= scan.limit ? 0 : filled_[row]);
    }
    table.screened.fetch_add(done, std::memory_order_relaxed);
    return left;
  }

  // How many of some items of a row score above its target.
  struct Exactly {
    const Table& table;
    const ScanArgs& scan;
    std::vector<float> logits;

    static std::int64_t count(const void* context, std::int64_t row, const std::int32_t* ids, std::int64_t n) {
      Exactly& self = *static_cast<Exactly*>(const_cast<void*>(context));
      self.logits.resize(static_cast<std::size_t>(n));
      self.table.dots(self.scan.queries + row * self.scan.dim, ids, n, self.logits.data());
      std::int64_t above = 0;
      for (const float logit : self.logits) above += logit > self.scan.target[row];
      return above;
    }
  };

  void reserve(const ScanArgs& scan, std::int64_t quads) {
    if (rows_ >= scan.num_rows) return;
    rows_ = (scan.num_rows + kScreenHeight - 1) / kScreenHeight * kScreenHeight;
    answered_ = allocate_aligned<unsigned char>(rows_);
    skip_ = allocate_aligned<unsigned char>(rows_);
    gave_up_ = allocate_aligned<unsigned char>(rows_);
    queries_ = allocate_aligned<std::int8_t>(rows_ * quads * 4);
    tiles_ = allocate_aligned<std::int32_t>(rows_ * quads);
    lowest_ = allocate_aligned<std::int32_t>(rows_);
    row_at_ = allocate_aligned<std::int32_t>(rows_);
    if (scan.target) {
      maybe_ = allocate_aligned<std::int32_t>(rows_);
      sure_ = allocate_aligned<std::int32_t>(rows_);
      pending_ = allocate_aligned<std::int32_t>(rows_ * kScreenPending);
      waiting_ = allocate_aligned<std::int64_t>(rows_);
      spent_ = allocate_aligned<std::int64_t>(rows_);
    }
    if (scan.k > 0) {
      slots_ = (4 * scan.k + 4 * kScreenWidth + 15) / 16 * 16;
      least_ = allocate_aligned<std::int32_t>(rows_);
      slack_ = allocate_aligned<std::int32_t>(rows_);
      threshold_ = allocate_aligned<std::int32_t>(rows_);
      scores_ = allocate_aligned<std::int32_t>(rows_ * slots_);
      ids_ = allocate_aligned<std::int32_t>(rows_ * slots_);
      filled_ = allocate_aligned<std::int64_t>(rows_);
      cursor_ = allocate_aligned<std::int64_t>(rows_);
      full_at_ = allocate_aligned<std::int64_t>(rows_);
    }
  }

  ScreenArgs arguments(const Table& table, const Codes& codes, const ScanArgs& scan) const {
    ScreenArgs args{};
    args.codes = codes.data();
    args.quads = codes.quads;
    args.num_items = table.num_items;
    args.block_begin = scan.block_begin;
    args.block_end = scan.block_end;
    args.queries = queries_.get();
    args.num_rows = scan.num_rows;
    args.skip = skip_.get();
    args.maybe = scan.target ? maybe_.get() : nullptr;
    args.sure = sure_.get();
    args.ahead = scan.ahead;
    args.limit = scan.limit;
    args.counts = scan.counts;
    args.budget = kScreenPending + (scan.block_end - scan.block_begin) * kScreenWidth / 32;
    args.k = scan.k;
    args.least = least_.get();
    args.slack = slack_.get();
    args.excluded = scan.excluded;
    args.excluded_offsets = scan.excluded_offsets;
    args.slots = slots_;
    args.scores = scores_.get();
    args.ids = ids_.get();
    args.filled = filled_.get();
    args.gave_up = gave_up_.get();
    args.tiles = tiles_.get();
    args.lowest = lowest_.get();
    args.threshold = threshold_.get();
    args.row_at = row_at_.get();
    args.cursor = cursor_.get();
    args.full_at = full_at_.get();
    args.pending = pending_.get();
    args.waiting = waiting_.get();
    args.spent = spent_.get();
    return args;
  }

  // Leaves a row of the scan the k best of its n candidates.
  void keep(const Table& table, const ScanArgs& scan, std::int64_t row, std::int64_t n) {
    const std::int32_t* ids = ids_.get() + row * slots_;
    logits_.resize(static_cast<std::size_t>(n));
    table.dots(scan.queries + row * scan.dim, ids, n, logits_.data());
    best_.clear();
    for (std::int64_t i = 0; i < n; ++i)
      if (logits_[i] > kLowest) best_.push_back({ids[i], logits_[i]});
    keep_best(best_, scan.k);
    scan.filled[row] = static_cast<std::int64_t>(best_.size());
    for (std::size_t i = 0; i < best_.size(); ++i) {
      scan.top_ids[row * scan.slots + i] = best_[i].id;
      scan.top_logits[row * scan.slots + i] = best_[i].logit;
    }
  }

  std::int64_t rows_ = 0, slots_ = 0, tried_ = 0, failed_ = 0;
  Aligned<unsigned char> answered_, skip_, gave_up_;
  Aligned<std::int8_t> queries_;
  Aligned<std::int32_t> tiles_, lowest_, row_at_, maybe_, sure_, pending_, least_, slack_, threshold_, scores_, ids_;
  Aligned<std::int64_t> waiting_, spent_, filled_, cursor_, full_at_;
  std::vector<float> logits_;
  std::vector<Candidate> best_;
};

}  // namespace

}  // namespace rsir
