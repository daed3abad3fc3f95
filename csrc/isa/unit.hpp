// What a translation unit compiled for one instruction set offers to the rest of the core.
//
// Only plain pointers cross this border: the units behind it are built with wider instructions than
// the machine may have, so nothing the linker could share (inline functions, templates of the
// standard library) may appear in them.
#pragma once

#include <cstdint>

namespace rsir {

struct ScreenArgs;
using ScreenFunction = void (*)(const ScreenArgs&);  // isa/screen.hpp

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
  const std::int32_t* ahead;  // (num_rows,) counts begin at -ahead[row]; or null
  // With an item of its own, whose logit target[row] is, a row counts what comes before that item: equal logits of
  // lower ids, too.
  const std::int32_t* own;    // (num_rows,), or null
  const std::int32_t* by_own;  // (num_rows,) rows in ascending order of own

  // Selection of the k best items not excluded; k = 0: none. A row collects the items above its threshold, and is cut
  // to the k best, which raises the threshold, whenever fewer than a block's width of its slots are left.
  std::int64_t k;
  const float* least;                    // (num_rows,) lower logits are not collected; or null
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

constexpr std::int64_t kSoftmaxTile = 64;  // positions in a tile of logits; a multiple of the lanes of every unit

// A Transformer layer: sizes, parameters as torch keeps them, dropout. See layer.hpp for the arithmetic.
struct LayerShape {
  std::int64_t dim, feedforward, heads, width;  // width: positions in a row of the batch
  float epsilon;                                // of the layer norms
  int dropped;                                  // an element is dropped where its random byte is below this
  float kept_scale;                             // of the others
  std::int64_t reach = 0;                       // distances that the filter's bias knows; 0: no filter
};

struct LayerWeights {
  const float *in_weight, *in_bias;      // (3 d, d), (3 d)
  const float *out_weight, *out_bias;    // (d, d), (d)
  const float *norm1_weight, *norm1_bias;
  const float *up_weight, *up_bias;      // (f, d), (f)
  const float *down_weight, *down_bias;  // (d, f), (d)
  const float *norm2_weight, *norm2_bias;
  // Of a layer with a filter, else null.
  const float *distances, *beta;         // (heads, reach) added to the logits of attention; (d)
  const float *filter_weight, *filter_bias;  // of the filter's norm
  float share, decay;
};

struct LayerGradients {  // the same shapes; added to
  float *in_weight, *in_bias, *out_weight, *out_bias, *norm1_weight, *norm1_bias;
  float *up_weight, *up_bias, *down_weight, *down_bias, *norm2_weight, *norm2_bias;
  float *distances, *beta, *filter_weight, *filter_bias;
};

struct LayerTransposed {  // weights as right-hand sides of the forward products
  const float *in, *out, *up, *down;
};

struct LayerBytes {  // random bytes of one row of the batch; null: no dropout
  const unsigned char* attention;  // (heads, width, width)
  const unsigned char* out;        // (width, d)
  const unsigned char* hidden;     // (width, f)
  const unsigned char* down;       // (width, d)
  const unsigned char* low;        // (width, d), with a filter
};

struct LayerSaved {  // what the backward pass needs, of one row of the batch
  float* qkv;        // (width, 3 d)
  float* attended;   // (width, d)
  float* normed1;    // (width, d) normalised before weight and bias
  float* active;     // (width, f) what GELU and dropout made of the hidden units
  float* slopes;     // (width, f) their slopes there
  float* normed2;    // (width, d)
  float* rstd;       // (width, 2)
  float* filtered;   // (width, d) the filter's norm before weight and bias; null without one
  float* filter_rstd;  // (width)
};

// One step of Adam, and of the average that follows the weights.
struct AdamStep {
  float rate, epsilon;        // rate: over 1 - beta1^step
  float root;                 // of 1 - beta2^step
  float take1, keep2, take2;  // 1 - beta1, beta2, 1 - beta2
  float follows;              // the average goes this share of its way to the weights
};

using Product = void (*)(bool across, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
                         const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool add);

// The functions; implementation.hpp makes one of them for each instruction set, dispatch.hpp finds them by name.
struct Unit {
  const char* name;
  int height;  // query rows in a register tile
  int width;   // items in a packed block

  // The catalogue.
  void (*scan)(const ScanArgs&);
  // out[i] = logit of item ids[i], in the very arithmetic of the scan; weights is (num_items + 1, dim).
  void (*dots)(const float* weights, std::int64_t dim, const float* query, const std::int32_t* ids,
               std::int64_t n, float* out);
  // The same from packed items in half precision.
  void (*half_dots)(const std::uint16_t* half_panels, std::int64_t dim, const float* query, const std::int32_t* ids,
                    std::int64_t n, float* out);
  // Runs independent multiply-adds only; returns the floating point operations done.
  double (*burn)(std::int64_t iterations, float* sink);

  // The network.
  // c (m, n) = a b, or c += a b. a is (m, k) with rows lda apart, or with across its transpose (k, m) is.
  Product product;
  // The same of pairs of bfloat16, which stand where a float would: k counts pairs.
  Product pair_product;
  float (*dot)(const float* a, const float* b, std::int64_t n);
  // Over the rows of x (n, kSoftmaxTile): top = max(top, x), NaN left out; x = exp(x - top) and total += x.
  void (*raise_tops)(const float* x, std::int64_t n, float* top);
  void (*exponentiate)(float* x, std::int64_t n, const float* top, float* total);
  // The same with shares rounded to bfloat16: pairs within a row, of places i and i + kSoftmaxTile / 2, (n,
  // kSoftmaxTile / 2); and pairs of one place in rows 2 i and 2 i + 1, the last one perhaps with zeros, (n / 2 rounded
  // up, kSoftmaxTile). Totals are of shares before rounding.
  void (*exponentiate_pairs)(const float* x, std::int64_t n, const float* top, float* total, float* within,
                             float* between);
  // One row of the batch; scratch holds layer_scratch(shape) floats.
  void (*layer_forward)(const LayerShape&, const LayerWeights&, const LayerTransposed&, const LayerBytes&,
                        const std::int64_t* segments, const float* x, const LayerSaved&, float* y, float* scratch);
  void (*layer_backward)(const LayerShape&, const LayerWeights&, const LayerBytes&, const std::int64_t* segments,
                         const float* x, const LayerSaved&, const float* grad_y, float* grad_x,
                         const LayerGradients&, float* scratch);
  // The layer without dropout over sequences laid one after the other: number r is positions starts[r]..starts[r + 1]
  // of x, y has one row a position or, with last_only, one a sequence: that of its last position. Scratch holds
  // encode_scratch(shape) floats a position.
  void (*encode_layer)(const LayerShape&, const LayerWeights&, const LayerTransposed&, const std::int64_t* starts,
                       std::int64_t sequences, const float* x, bool last_only, float* y, float* scratch);
  // The same for one more position of each of many sequences: keys[r] and values[r] are the caches of row r, (heads,
  // width, d / heads), filled up to at[r], where those of this position are written, and lows[r] is what the filter of
  // row r has averaged (d), brought up to date. Scratch as for encode_layer.
  void (*step_layer)(const LayerShape&, const LayerWeights&, const LayerTransposed&, std::int64_t rows,
                     float* const* keys, float* const* values, float* const* lows, const std::int64_t* at,
                     const float* x, float* y, float* scratch);
  // n elements; no gradient (null) is one of zeros, no average is kept where that is null.
  void (*adam)(const AdamStep&, std::int64_t n, const float* gradient, float* weights, float* first, float* second,
               float* average);

  // Of a scan, what codes of eight bits can tell; null where there are no products of bytes.
  ScreenFunction screen = nullptr;
};

inline std::int64_t layer_scratch(const LayerShape& s) { return s.width * (7 * s.dim + s.feedforward + 3); }

inline std::int64_t encode_scratch(const LayerShape& s) {
  return (s.reach ? 6 : 5) * s.dim + s.feedforward + s.width;
}

// The unit's pair_product, or one by instructions for pairs where the unit is AVX-512 and the processor has them.
Product best_pair_product(const Unit&);

const Unit& unit_base();
#ifdef RSIR_X86
const Unit& unit_avx2();
const Unit& unit_avx512();
#ifdef RSIR_BF16
extern const Product kNativePairProduct;  // AVX512_BF16
#endif
#ifdef RSIR_VNNI
extern const ScreenFunction kScreen;  // AVX512_VNNI
#endif
#endif

}  // namespace rsir
