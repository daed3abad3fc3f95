// The screen by AVX-512's products of bytes, four times as many a cycle as multiply-adds.
#include "isa/screen.hpp"

#include <immintrin.h>

#include "isa/excluded.hpp"
#include "isa/unit.hpp"

namespace {

using rsir::ScreenArgs;

constexpr int kLanes = 16, kVectors = 3, kHeight = rsir::kScreenHeight, kWidth = rsir::kScreenWidth;
constexpr std::int32_t kNone = -2147483647 - 1, kAll = 2147483647;
constexpr std::int64_t kBlocksBetweenDrops = 4;
constexpr std::int64_t kBetweenCuts = 16;  // new candidates before a row is cut, or k of them
static_assert(kWidth == kLanes * kVectors, "a block is one row of accumulators");

struct Screen {
  const ScreenArgs& a;
  std::int64_t live = 0;  // rows still in the tiles, at positions 0..live-1
  bool dropping = false;  // some row has to leave them

  explicit Screen(const ScreenArgs& args) : a(args) {}

  std::int32_t* column(std::int64_t position) const {
    return a.tiles + position / kHeight * kHeight * a.quads + position % kHeight;
  }

  void load_rows() {
    const std::int64_t capacity = (a.num_rows + kHeight - 1) / kHeight * kHeight;
    for (std::int64_t row = 0; row < a.num_rows; ++row) {
      a.gave_up[row] = 0;
      if (a.skip[row]) continue;
      if (a.maybe) {
        a.counts[row] = a.ahead ? -a.ahead[row] : 0;
        a.waiting[row] = a.spent[row] = 0;
      }
      if (a.k > 0) {
        a.filled[row] = 0;
        a.full_at[row] = 0;
        a.threshold[row] = a.least ? a.least[row] : kNone;
        if (a.excluded) find_cursor(row);
      }
      std::int32_t* to = column(live);
      for (std::int64_t quad = 0; quad < a.quads; ++quad)
        __builtin_memcpy(to + quad * kHeight, a.queries + (row * a.quads + quad) * 4, 4);
      a.row_at[live] = static_cast<std::int32_t>(row);
      set_lowest(live++);
    }
    for (std::int64_t position = live; position < capacity; ++position) blank(position);
  }

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

  void set_lowest(std::int64_t position) {
    const std::int64_t row = a.row_at[position];
    const std::int32_t counted = a.maybe ? a.maybe[row] : kAll, chosen = a.k > 0 ? a.threshold[row] : kAll;
    a.lowest[position] = counted < chosen ? counted : chosen;
  }

  // A position that holds no row: nothing is above its lowest score.
  void blank(std::int64_t position) {
    std::int32_t* to = column(position);
    for (std::int64_t quad = 0; quad < a.quads; ++quad) to[quad * kHeight] = 0;
    a.lowest[position] = kAll;
  }

  // Takes rows that are done or gave up out, and fills their places from the end.
  void drop_finished() {
    dropping = false;
    for (std::int64_t position = 0; position < live;) {
      const std::int64_t row = a.row_at[position];
      if (!a.gave_up[row] && !(a.maybe && a.counts[row] >= a.limit)) {
        ++position;
        continue;
      }
      --live;
      if (position != live) {
        const std::int32_t* from = column(live);
        std::int32_t* to = column(position);
        for (std::int64_t quad = 0; quad < a.quads; ++quad) to[quad * kHeight] = from[quad * kHeight];
        a.lowest[position] = a.lowest[live];
        a.row_at[position] = a.row_at[live];
      }
      blank(live);
    }
  }

  void retire(std::int64_t position) {
    a.lowest[position] = kAll;
    dropping = true;
  }

  void settle(std::int64_t row) {
    if (a.waiting[row] == 0) return;
    a.counts[row] += a.count_exactly(a.context, row, a.pending + row * rsir::kScreenPending, a.waiting[row]);
    a.spent[row] += a.waiting[row];
    a.waiting[row] = 0;
  }

  static __m512i ids_from(std::int32_t first) {
    return _mm512_add_epi32(_mm512_set1_epi32(first),
                            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }

  // Looks at the scores of one row in one block, some of which are above its lowest.
  __attribute__((noinline)) void visit(std::int64_t position, const std::int32_t* scores, std::int32_t first_id) {
    const std::int64_t row = a.row_at[position];
    const std::int64_t left = a.num_items - first_id + 1;
    const std::uint64_t there = left >= kWidth ? ~std::uint64_t{0} : (std::uint64_t{1} << left) - 1;
    if (a.maybe) {
      const __m512i maybe = _mm512_set1_epi32(a.maybe[row]), sure = _mm512_set1_epi32(a.sure[row]);
      std::int32_t* const pending = a.pending + row * rsir::kScreenPending;
      std::int64_t count = a.counts[row], n = a.waiting[row];
      for (int v = 0; v < kVectors; ++v) {
        const __m512i x = _mm512_load_si512(scores + v * kLanes);
        const __mmask16 valid = static_cast<__mmask16>(there >> (v * kLanes));
        const __mmask16 above = _mm512_mask_cmpgt_epi32_mask(valid, x, sure);
        const __mmask16 open = _mm512_mask_cmpgt_epi32_mask(static_cast<__mmask16>(valid & ~above), x, maybe);
        count += __builtin_popcount(above);
        _mm512_storeu_si512(pending + n, _mm512_maskz_compress_epi32(open, ids_from(first_id + v * kLanes)));
        n += __builtin_popcount(open);
      }
      a.counts[row] = count;
      a.waiting[row] = n;
      if (n > rsir::kScreenPending - kWidth) {
        if (a.spent[row] + n > a.budget) {
          a.gave_up[row] = 1;
          return retire(position);
        }
        settle(row);
      }
      if (a.counts[row] >= a.limit) return retire(position);
    }
    if (a.k > 0) {
      const __m512i bar = _mm512_set1_epi32(a.threshold[row]);
      std::int64_t n = a.filled[row];
      for (int v = 0; v < kVectors; ++v) {
        const __m512i x = _mm512_load_si512(scores + v * kLanes);
        const __mmask16 valid = static_cast<__mmask16>(there >> (v * kLanes));
        const __mmask16 above = _mm512_mask_cmpgt_epi32_mask(valid, x, bar);
        _mm512_storeu_si512(a.scores + row * a.slots + n, _mm512_maskz_compress_epi32(above, x));
        _mm512_storeu_si512(a.ids + row * a.slots + n,
                            _mm512_maskz_compress_epi32(above, ids_from(first_id + v * kLanes)));
        n += __builtin_popcount(above);
      }
      a.filled[row] = n;
      if (n > a.full_at[row]) {
        cut(row);
        if (a.filled[row] > a.slots - kWidth - kBetweenCuts) {
          a.gave_up[row] = 1;
          return retire(position);
        }
        set_lowest(position);
      }
    }
  }

  static std::int64_t count_above(const std::int32_t* scores, std::int64_t n, std::int32_t bar) {
    std::int64_t count = 0;
    const __m512i bars = _mm512_set1_epi32(bar);
    for (std::int64_t i = 0; i < n; i += kLanes)
      count += __builtin_popcount(_mm512_cmpgt_epi32_mask(_mm512_load_si512(scores + i), bars));
    return count;
  }

  static std::int32_t largest(const std::int32_t* scores, std::int64_t n) {
    __m512i most = _mm512_load_si512(scores);
    for (std::int64_t i = kLanes; i < n; i += kLanes)
      most = _mm512_maskz_max_epi32(0xffff, most, _mm512_load_si512(scores + i));
    alignas(64) std::int32_t lanes[kLanes];
    _mm512_store_si512(lanes, most);
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
    return lanes[0];
  }

  // Leaves the candidates whose score is at least that of the k-th best less the slack, and raises the threshold to it.
  void cut(std::int64_t row) {
    const std::int64_t n = a.filled[row];
    std::int32_t* const scores = a.scores + row * a.slots;
    std::int32_t* const ids = a.ids + row * a.slots;
    if (n > 0) {
      std::int64_t banned = 0;
      if (a.excluded)
        banned = ban_excluded(a.excluded, a.cursor[row], a.excluded_offsets[row + 1], kNone, scores, ids, n);
      for (std::int64_t i = n; i % kLanes != 0; ++i) scores[i] = kNone;
      std::int64_t bar = kNone;
      if (n - banned > a.k) {
        // More than k candidates have a score above `low`, at most k one above `high`.
        std::int64_t low = a.threshold[row], high = largest(scores, n);
        if (low == kNone) low = smallest(scores, n) - std::int64_t{1};
        while (high - low > 1) {
          const std::int64_t middle = low + (high - low) / 2;
          const std::int64_t count = count_above(scores, n, static_cast<std::int32_t>(middle));
          if (count > a.k)
            low = middle;
          else
            high = middle;
          if (count == a.k) break;
        }
        // The k-th best is at least high, or above it: a lower bar keeps more and loses none.
        bar = high - a.slack[row] - 1;
        if (bar < a.threshold[row]) bar = a.threshold[row];
        a.threshold[row] = static_cast<std::int32_t>(bar);
      }
      std::int64_t kept = 0;
      const __m512i bars = _mm512_set1_epi32(static_cast<std::int32_t>(bar));
      for (std::int64_t i = 0; i < n; i += kLanes) {
        const __m512i x = _mm512_load_si512(scores + i), id = _mm512_load_si512(ids + i);
        const __mmask16 above = _mm512_cmpgt_epi32_mask(x, bars);
        _mm512_storeu_si512(scores + kept, _mm512_maskz_compress_epi32(above, x));
        _mm512_storeu_si512(ids + kept, _mm512_maskz_compress_epi32(above, id));
        kept += __builtin_popcount(above);
      }
      a.filled[row] = kept;
    }
    const std::int64_t more = a.filled[row] + (a.k > kBetweenCuts ? a.k : kBetweenCuts);
    a.full_at[row] = more < a.slots - kWidth ? more : a.slots - kWidth;
  }

  static std::int32_t smallest(const std::int32_t* scores, std::int64_t n) {  // of those that are not excluded
    std::int32_t least = kAll;
    for (std::int64_t i = 0; i < n; ++i)
      if (scores[i] != kNone && scores[i] < least) least = scores[i];
    return least;
  }

  // sum += products of the bytes of an item and of a query's quad. By hand, as GCC 12 moves every accumulator of
  // _mm512_dpbusd_epi32 to memory and back: a scan took twice as long.
  static void add_products(__m512i& sum, __m512i item, const std::int32_t& quad) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(item), "m"(quad));
  }

  template <int Rows>
  __attribute__((always_inline)) void tile(std::int64_t position, const std::uint8_t* block, std::int32_t first_id) {
    const std::int32_t* query = a.tiles + position * a.quads;
    __m512i acc[Rows][kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] = _mm512_setzero_si512();
    for (std::int64_t quad = 0; quad < a.quads; ++quad) {
      __m512i item[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) item[v] = _mm512_load_si512(block + v * 64);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) add_products(acc[r][v], item[v], query[r]);
      block += kWidth * 4;
      query += kHeight;
    }
    const std::int32_t* const lowest = a.lowest + position;
    std::uint32_t rows = 0;
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const __m512i bar = _mm512_set1_epi32(lowest[r]);
      __mmask16 none = _mm512_cmple_epi32_mask(acc[r][0], bar);
#pragma GCC unroll 4
      for (int v = 1; v < kVectors; ++v) none = _mm512_mask_cmple_epi32_mask(none, acc[r][v], bar);
      rows |= static_cast<std::uint32_t>(none != 0xffff) << r;
    }
    if (rows == 0) return;
    // All of them, and not those of the rows alone: accumulators that live on beyond a call leave the registers in the
    // loop above, which then takes twice as long.
    alignas(64) std::int32_t scores[Rows][kWidth];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) _mm512_store_si512(scores[r] + v * kLanes, acc[r][v]);
    for (; rows; rows &= rows - 1) {
      const int r = __builtin_ctz(rows);
      visit(position + r, scores[r], first_id);
    }
  }

  void run() {
    load_rows();
    const std::int64_t bytes = a.quads * kWidth * 4;
    for (std::int64_t i = a.block_begin; i < a.block_end && live > 0; ++i) {
      const std::uint8_t* const block = a.codes + i * bytes;
      const std::int32_t first_id = static_cast<std::int32_t>(i * kWidth + 1);
      const std::uint8_t* next = block + (i + 1 < a.block_end ? bytes : 0);
      const std::uint8_t* const end = i + 1 < a.block_end ? next + bytes : next;
      std::int64_t position = 0;
      for (; live - position > kHeight / 2; position += kHeight) {
        for (const std::uint8_t* stop = end - next < 256 ? end : next + 256; next < stop; next += 64)
          __builtin_prefetch(next, 0, 2);
        tile<kHeight>(position, block, first_id);
      }
      if (live - position > 2)
        tile<kHeight / 2>(position, block, first_id);
      else if (live - position == 2)
        tile<2>(position, block, first_id);
      else if (live - position == 1)
        tile<1>(position, block, first_id);
      if (dropping && (i - a.block_begin + 1) % kBlocksBetweenDrops == 0) drop_finished();
    }
    for (std::int64_t position = 0; position < live; ++position) {
      const std::int64_t row = a.row_at[position];
      if (a.gave_up[row] || (a.maybe && a.counts[row] >= a.limit)) continue;
      if (a.maybe) settle(row);
      if (a.k > 0) cut(row);
    }
  }
};

void screen(const ScreenArgs& args) { Screen(args).run(); }

}  // namespace

const rsir::ScreenFunction rsir::kScreen = screen;
