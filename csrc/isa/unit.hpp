// What a translation unit compiled for one instruction set offers to the rest of the core.
//
// Only plain pointers cross this border: the units behind it are built with wider instructions than
// the machine may have, so nothing the linker could share (inline functions, templates of the
// standard library) may appear in them.
#pragma once

#include <cstdint>

namespace rsir {

// One scan of the items in blocks [block_begin, block_end) for a panel of query rows.
// "row" below is a row of the panel, 0..num_rows-1.
struct ScanArgs {
  const float* panels;  // packed items: [block][dim][width], unused lanes of the last block are NaN; or null
  const std::uint16_t* half_panels;  // the same in half precision; or null
  std::int64_t dim;
  std::int64_t block_begin, block_end;

  const float* queries;  // (num_rows, dim)
  std::int64_t num_rows;
  const unsigned char* skip;  // (num_rows,) rows that need no scan; or null

  // Counting: how many items score above target[row]. A row whose count reaches limit is dropped.
  const float* target;   // (num_rows,), or null when nothing is counted
  std::int64_t limit;    // INT64_MAX: never drop
  std::int64_t* counts;  // out (num_rows,); at least limit when the row was dropped
  // With an item of its own, whose logit target[row] is, a row counts what comes before that item: equal logits of
  // lower ids, too. Counts begin at -ahead[row].
  const std::int32_t* own;    // (num_rows,), or null
  const std::int32_t* ahead;  // (num_rows,)
  const std::int32_t* by_own;  // (num_rows,) rows in ascending order of own

  // Selection of the k best items not excluded; k = 0: none. A row collects the items above its threshold, and is cut
  // to the k best, which raises the threshold, whenever fewer than a block's width of its slots are left.
  std::int64_t k;
  const std::int32_t* excluded;          // ids, ascending within a row (duplicates allowed); or null
  const std::int64_t* excluded_offsets;  // (num_rows + 1,)
  std::int64_t slots;                    // a row; a multiple of 16, at least k + width
  float* top_logits;                     // out (num_rows, slots), 64-byte aligned: the k best in ascending order of ids
  std::int32_t* top_ids;                 // out (num_rows, slots), 64-byte aligned
  std::int64_t* filled;                  // out (num_rows,): at most k

  // Scratch. capacity = num_rows rounded up to a multiple of the tile height.
  float* widened;           // with half_panels: dim * width, a block in single precision, 64-byte aligned
  float* tiles;             // capacity * dim, 64-byte aligned
  std::int32_t* lanes;      // capacity * 16, 64-byte aligned
  float* bar;               // capacity: best target logit of the row at each position
  float* threshold;         // capacity: the k-th best logit at the row's last cut
  std::int32_t* row_at;     // capacity
  std::int64_t* cursor;     // num_rows: place in the row's excluded list
  std::int32_t* position_of;  // num_rows, with own: the row's position, -1 for none
};

struct Kernels {
  const char* name;
  int height;  // query rows in a register tile
  int width;   // items in a packed block
  void (*scan)(const ScanArgs&);
  // out[i] = logit of item ids[i], in the very arithmetic of the scan; weights is (num_items + 1, dim).
  void (*dots)(const float* weights, std::int64_t dim, const float* query, const std::int32_t* ids,
               std::int64_t n, float* out);
  // The same from packed items in half precision.
  void (*half_dots)(const std::uint16_t* half_panels, std::int64_t dim, const float* query, const std::int32_t* ids,
                    std::int64_t n, float* out);
  // Runs independent multiply-adds only; returns the floating point operations done.
  double (*burn)(std::int64_t iterations, float* sink);
};

const Kernels& kernels_base();
#ifdef RSIR_X86
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#endif

}  // namespace rsir
