// The scan of the packed catalogue, written once over the Isa vectors of the unit that includes it.
//
// A thin GEMM of row tiles against item blocks whose results never leave the registers but for the few
// logits that enter a row's running top-k. Every (row, item) logit is one chain of multiply-adds over
// the dimensions in ascending order, whatever the tile, batch or thread: a row's answer has the same
// bits wherever it is computed.
//
// Everything here has internal linkage; see isa/unit.hpp for why.
#pragma once

#include <cstdint>

#include "isa/excluded.hpp"
#include "isa/unit.hpp"

namespace {

using rsir::ScanArgs;

constexpr int kWidth = Isa::kLanes * Isa::kVectors;
constexpr std::int64_t kBlocksBetweenDrops = 256 / kWidth;  // how often finished rows leave the tiles
constexpr float kLowest = -__builtin_inff();
constexpr std::uint32_t kAllLanes = (1u << Isa::kLanes) - 1;

// Whole numbers in the order of the floats, and back.
inline std::int64_t order(float x) {
  std::int32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

inline float unorder(std::int64_t place) {
  std::int32_t bits = static_cast<std::int32_t>(place);
  bits ^= (bits >> 31) & 0x7fffffff;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

struct Scan {
  const ScanArgs& a;
  std::int64_t live = 0;  // rows still in the tiles, at positions 0..live-1
  std::int64_t next_own = 0;  // place in by_own

  explicit Scan(const ScanArgs& args) : a(args) {}

  float* column(std::int64_t position) const {
    return a.tiles + position / Isa::kHeight * Isa::kHeight * a.dim + position % Isa::kHeight;
  }

  void load_rows() {
    const std::int64_t capacity = (a.num_rows + Isa::kHeight - 1) / Isa::kHeight * Isa::kHeight;
    for (std::int64_t row = 0; row < a.num_rows; ++row) {
      if (a.own) a.position_of[row] = -1;
      if (a.skip && a.skip[row]) continue;  // it may have its answer already
      if (a.counts) a.counts[row] = 0;
      if (a.k > 0) a.filled[row] = 0;
      if (a.k > 0 && a.excluded) find_cursor(row);
      const float* query = a.queries + row * a.dim;
      float* to = column(live);
      for (std::int64_t t = 0; t < a.dim; ++t) to[t * Isa::kHeight] = query[t];
      a.row_at[live] = static_cast<std::int32_t>(row);
      if (a.target) a.bar[live] = a.own ? below(a.target[row]) : a.target[row];
      if (a.own) a.position_of[row] = static_cast<std::int32_t>(live);
      a.threshold[live] = a.least && a.least[row] > kLowest ? below(a.least[row]) : kLowest;
      ++live;
    }
    for (std::int64_t position = live; position < capacity; ++position) blank(position);
    for (std::int64_t i = 0; i < capacity * Isa::kLanes; ++i) a.lanes[i] = 0;
    if (a.ahead)
      for (std::int64_t position = 0; position < live; ++position)
        a.lanes[position * Isa::kLanes] = -a.ahead[a.row_at[position]];
  }

  // The next lower number, so that "above it" means "at least x"; x is above -inf.
  static float below(float x) {
    std::int32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    bits = x == 0.0f ? static_cast<std::int32_t>(0x80000001u) : x > 0.0f ? bits - 1 : bits + 1;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
  }

  // From the block on that holds a row's own item equal logits no longer count, but for lower ids of this block.
  void raise_bars(const float* block, std::int32_t first_id) {
    for (; next_own < a.num_rows; ++next_own) {
      const std::int32_t row = a.by_own[next_own], place = a.own[row] - first_id, position = a.position_of[row];
      if (place >= kWidth) return;
      if (position < 0) continue;
      a.bar[position] = a.target[row];
      a.lanes[position * Isa::kLanes] += equals_before(block, a.queries + row * a.dim, a.target[row], place);
    }
  }

  std::int32_t equals_before(const float* block, const float* query, float target, std::int32_t place) const {
    Isa::F acc[Isa::kVectors];
    for (int v = 0; v < Isa::kVectors; ++v) acc[v] = Isa::set1(0.0f);
    for (std::int64_t t = 0; t < a.dim; ++t)
      for (int v = 0; v < Isa::kVectors; ++v)
        acc[v] = Isa::madd(Isa::set1(query[t]), Isa::load(block + t * kWidth + v * Isa::kLanes), acc[v]);
    alignas(64) float logits[kWidth];
    for (int v = 0; v < Isa::kVectors; ++v) Isa::store(logits + v * Isa::kLanes, acc[v]);
    std::int32_t equal = 0;
    for (std::int32_t i = 0; i < place; ++i) equal += logits[i] == target;
    return equal;
  }

  // A block in single precision: it is read once for each tile of rows.
  const float* widen(const std::uint16_t* half) const {
    for (std::int64_t i = 0; i < a.dim * kWidth; i += Isa::kLanes) Isa::store(a.widened + i, Isa::widen(half + i));
    return a.widened;
  }

  // The first excluded id at or after the first item of this scan.
  void find_cursor(std::int64_t row) {
    const std::int64_t first_id = a.block_begin * kWidth + 1;
    std::int64_t low = a.excluded_offsets[row], high = a.excluded_offsets[row + 1];
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (a.excluded[middle] < first_id)
        low = middle + 1;
      else
        high = middle;
    }
    a.cursor[row] = low;
  }

  // A position that holds no row: nothing is above its bars.
  void blank(std::int64_t position) {
    float* to = column(position);
    for (std::int64_t t = 0; t < a.dim; ++t) to[t * Isa::kHeight] = 0.0f;
    a.bar[position] = -kLowest;
    a.threshold[position] = -kLowest;
  }

  std::int64_t count_at(std::int64_t position) const {
    std::int64_t sum = 0;
    for (int i = 0; i < Isa::kLanes; ++i) sum += a.lanes[position * Isa::kLanes + i];
    return sum;
  }

  // Takes rows whose count has reached the limit out, and fills their places from the end.
  void drop_finished() {
    for (std::int64_t position = 0; position < live;) {
      const std::int64_t count = count_at(position);
      if (count < a.limit) {
        ++position;
        continue;
      }
      a.counts[a.row_at[position]] = count;
      if (a.own) a.position_of[a.row_at[position]] = -1;
      --live;
      if (position != live) {
        const float* from = column(live);
        float* to = column(position);
        for (std::int64_t t = 0; t < a.dim; ++t) to[t * Isa::kHeight] = from[t * Isa::kHeight];
        for (int i = 0; i < Isa::kLanes; ++i)
          a.lanes[position * Isa::kLanes + i] = a.lanes[live * Isa::kLanes + i];
        a.bar[position] = a.bar[live];
        a.threshold[position] = a.threshold[live];
        a.row_at[position] = a.row_at[live];
        if (a.own) a.position_of[a.row_at[position]] = static_cast<std::int32_t>(position);
      }
      blank(live);
    }
  }

  void write_counts() const {
    for (std::int64_t position = 0; position < live; ++position) a.counts[a.row_at[position]] = count_at(position);
  }

  // Adds a row's logits above its threshold to its candidates; true when it must be cut before the next block.
  __attribute__((always_inline)) bool collect(std::int64_t position, const Isa::F (&x)[Isa::kVectors],
                                              std::int32_t first_id) {
    const std::int64_t row = a.row_at[position];
    const Isa::F bar = Isa::set1(a.threshold[position]);
    std::int64_t n = a.filled[row];
#pragma GCC unroll 4
    for (int v = 0; v < Isa::kVectors; ++v)
      n += Isa::append(a.top_logits + row * a.slots + n, a.top_ids + row * a.slots + n, x[v],
                       Isa::ids_from(first_id + v * Isa::kLanes), Isa::above(x[v], bar));
    a.filled[row] = n;
    return n > a.slots - kWidth;
  }

  __attribute__((noinline)) void cut_rows(std::int64_t position, std::uint32_t rows) {
    for (; rows; rows &= rows - 1) cut(position + __builtin_ctz(rows));
  }

  static std::int64_t count_above(const float* logits, std::int64_t n, float bar) {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < n; i += Isa::kLanes)
      count += Isa::count(Isa::above(Isa::load(logits + i), Isa::set1(bar)));
    return count;
  }

  static float largest(const float* logits, std::int64_t n) {
    Isa::F most = Isa::load(logits);
    for (std::int64_t i = Isa::kLanes; i < n; i += Isa::kLanes) {
      const Isa::F x = Isa::load(logits + i);
      most = x > most ? x : most;
    }
    alignas(64) float lanes[Isa::kLanes];
    Isa::store(lanes, most);
    for (int half = Isa::kLanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
    return lanes[0];
  }

  // Keeps the k best candidates of the row at a position, and raises its threshold to where the others lie below.
  // Candidates stand in ascending order of ids, so of equal ones the first are kept.
  void cut(std::int64_t position) {
    const std::int64_t row = a.row_at[position], n = a.filled[row];
    float* logits = a.top_logits + row * a.slots;
    std::int32_t* ids = a.top_ids + row * a.slots;
    if (n == 0) return;
    std::int64_t banned = 0;  // what was kept at the last cut is free of them
    if (a.excluded)
      banned = ban_excluded(a.excluded, a.cursor[row], a.excluded_offsets[row + 1], kLowest, logits, ids, n);
    for (std::int64_t i = n; i % Isa::kLanes != 0; ++i) logits[i] = kLowest;
    float bar = kLowest;
    std::int64_t equal = 0;  // how many of those at the bar are kept
    if (n - banned > a.k) {
      // Bisects the floats in their order: more than k candidates lie above `low`, `above` of them above `high`.
      std::int64_t high = order(largest(logits, n)), above = 0;
      std::int64_t low = a.k == 1 ? high - 1 : order(a.threshold[position]) - 1;
      while (high - low > 1 && above < a.k) {
        const std::int64_t middle = low + (high - low) / 2;
        const std::int64_t count = count_above(logits, n, unorder(middle));
        if (count > a.k) {
          low = middle;
        } else {
          high = middle;
          above = count;
        }
      }
      bar = unorder(high);
      equal = a.k - above;
      a.threshold[position] = bar;
    }
    std::int64_t kept = 0;
    const Isa::F bars = Isa::set1(bar);
    for (std::int64_t i = 0; i < n; i += Isa::kLanes) {
      const Isa::F x = Isa::load(logits + i);
      std::uint32_t lanes = Isa::above(x, bars);
      if (equal > 0) {
        std::uint32_t same = ~(lanes | Isa::above(bars, x)) & kAllLanes;
        for (; same && equal > 0; same &= same - 1, --equal) lanes |= same & -same;
      }
      kept += Isa::append(logits + kept, ids + kept, x, Isa::load_ids(ids + i), lanes);
    }
    a.filled[row] = kept;
  }

  template <int Rows, bool Count, bool Select>
  __attribute__((always_inline)) void tile(std::int64_t position, const float* block, std::int32_t first_id) {
    const float* query = a.tiles + position * a.dim;
    Isa::F acc[Rows][Isa::kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < Isa::kVectors; ++v) acc[r][v] = Isa::set1(0.0f);
    for (std::int64_t t = 0; t < a.dim; ++t) {
      Isa::F item[Isa::kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < Isa::kVectors; ++v) item[v] = Isa::load(block + v * Isa::kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const Isa::F q = Isa::set1(query[r]);
#pragma GCC unroll 4
        for (int v = 0; v < Isa::kVectors; ++v) acc[r][v] = Isa::madd(q, item[v], acc[r][v]);
      }
      block += kWidth;
      query += Isa::kHeight;
    }
    if constexpr (Count) {
      std::int32_t* const lanes = a.lanes + position * Isa::kLanes;
      const float* const bars = a.bar + position;
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) Isa::count_above(lanes + r * Isa::kLanes, acc[r], Isa::set1(bars[r]));
    }
    if constexpr (Select) {
      const float* const thresholds = a.threshold + position;
      std::uint32_t rows = 0, full = 0;
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r)
        rows |= static_cast<std::uint32_t>(Isa::any_above(acc[r], Isa::set1(thresholds[r]))) << r;
      if (rows) {
#pragma GCC unroll 16
        for (int r = 0; r < Rows; ++r)
          if (rows >> r & 1) full |= static_cast<std::uint32_t>(collect(position + r, acc[r], first_id)) << r;
        if (full) cut_rows(position, full);
      }
    }
  }

  template <bool Count, bool Select>
  void run() {
    load_rows();
    const std::int64_t floats = a.dim * kWidth;
    const bool may_drop = a.limit < (a.block_end - a.block_begin) * kWidth;
    for (std::int64_t i = a.block_begin; i < a.block_end && live > 0; ++i) {
      const float* block = a.half_panels ? widen(a.half_panels + i * floats) : a.panels + i * floats;
      const std::int32_t first_id = static_cast<std::int32_t>(i * kWidth + 1);
      if constexpr (Count && !Select)
        if (a.own) raise_bars(block, first_id);
      const std::int64_t full = live / Isa::kHeight * Isa::kHeight;
      const std::int64_t rest = live - full;
      // spread the fetching of the next block over the tiles of this one
      const std::int64_t bytes = floats * (a.half_panels ? 2 : 4);
      const char* next = a.half_panels ? reinterpret_cast<const char*>(a.half_panels + (i + 1) * floats)
                                       : reinterpret_cast<const char*>(block + floats);
      const char* end = i + 1 < a.block_end ? next + bytes : next;
      const std::int64_t tiles = full / Isa::kHeight + (rest > 0);
      const std::int64_t share = ((end - next) / tiles + 63) / 64 * 64;
      std::int64_t position = 0;
      for (; position < full; position += Isa::kHeight) {
        for (const char* stop = end - next < share ? end : next + share; next < stop; next += 64)
          __builtin_prefetch(next, 0, 2);
        tile<Isa::kHeight, Count, Select>(position, block, first_id);
      }
      if (rest > Isa::kHeight / 2)
        tile<Isa::kHeight, Count, Select>(position, block, first_id);
      else if (rest > 2)
        tile<Isa::kHeight / 2, Count, Select>(position, block, first_id);
      else if (rest == 2)
        tile<2, Count, Select>(position, block, first_id);
      else if (rest == 1)
        tile<1, Count, Select>(position, block, first_id);
      if constexpr (Count)
        if (may_drop && (i - a.block_begin + 1) % kBlocksBetweenDrops == 0) drop_finished();
    }
    if constexpr (Count) write_counts();
    if constexpr (Select)
      for (std::int64_t position = 0; position < live; ++position) cut(position);
  }
};

void scan(const ScanArgs& args) {
  Scan s(args);
  if (args.target && args.k > 0)
    s.run<true, true>();
  else if (args.target)
    s.run<true, false>();
  else
    s.run<false, true>();
}

}  // namespace
