// What a translation unit compiled for one instruction set offers to training; isa/unit.hpp says why only plain
// pointers cross this border.
#pragma once

#include <cstdint>

namespace rsir {

constexpr std::int64_t kSoftmaxTile = 64;  // positions in a tile of logits; a multiple of the lanes of every unit

// A Transformer layer: sizes, parameters as torch keeps them, dropout. See layer.hpp for the arithmetic.
struct LayerShape {
  std::int64_t dim, feedforward, heads, width;  // width: positions in a row of the batch
  float epsilon;                                // of the layer norms
  int dropped;                                  // an element is dropped where its random byte is below this
  float kept_scale;                             // of the others
};

struct LayerWeights {
  const float *in_weight, *in_bias;      // (3 d, d), (3 d)
  const float *out_weight, *out_bias;    // (d, d), (d)
  const float *norm1_weight, *norm1_bias;
  const float *up_weight, *up_bias;      // (f, d), (f)
  const float *down_weight, *down_bias;  // (d, f), (d)
  const float *norm2_weight, *norm2_bias;
};

struct LayerGradients {  // the same shapes; added to
  float *in_weight, *in_bias, *out_weight, *out_bias, *norm1_weight, *norm1_bias;
  float *up_weight, *up_bias, *down_weight, *down_bias, *norm2_weight, *norm2_bias;
};

struct LayerTransposed {  // weights as right-hand sides of the forward products
  const float *in, *out, *up, *down;
};

struct LayerBytes {  // random bytes of one row of the batch; null: no dropout
  const unsigned char* attention;  // (heads, width, width)
  const unsigned char* out;        // (width, d)
  const unsigned char* hidden;     // (width, f)
  const unsigned char* down;       // (width, d)
};

struct LayerSaved {  // what the backward pass needs, of one row of the batch
  float* qkv;        // (width, 3 d)
  float* attended;   // (width, d)
  float* unit1;      // (width, d) normalised before weight and bias
  float* active;     // (width, f) what GELU and dropout made of the hidden units
  float* slopes;     // (width, f) their slopes there
  float* unit2;      // (width, d)
  float* rstd;       // (width, 2)
};

// One step of Adam, and of the average that follows the weights.
struct AdamStep {
  float rate, epsilon;        // rate: over 1 - beta1^step
  float root;                 // of 1 - beta2^step
  float take1, keep2, take2;  // 1 - beta1, beta2, 1 - beta2
  float follows;              // the average goes this share of its way to the weights
};

struct TrainingKernels {
  const char* name;
  // c (m, n) = a b, or c += a b. a is (m, k) with rows lda apart, or with across its transpose (k, m) is.
  void (*product)(bool across, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
                  const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool add);
  float (*dot)(const float* a, const float* b, std::int64_t n);
  // Over the rows of x (n, kSoftmaxTile): top = max(top, x), NaN left out; x = exp(x - top) and total += x.
  void (*raise_tops)(const float* x, std::int64_t n, float* top);
  void (*exponentiate)(float* x, std::int64_t n, const float* top, float* total);
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
  // width, d / heads), filled up to at[r], where those of this position are written. Scratch as for encode_layer.
  void (*step_layer)(const LayerShape&, const LayerWeights&, const LayerTransposed&, std::int64_t rows,
                     float* const* keys, float* const* values, const std::int64_t* at, const float* x, float* y,
                     float* scratch);
  // n elements; no gradient (null) is one of zeros, no average is kept where that is null.
  void (*adam)(const AdamStep&, std::int64_t n, const float* gradient, float* weights, float* first, float* second,
               float* average);
};

inline std::int64_t layer_scratch(const LayerShape& s) {
  return s.width * (7 * s.dim + s.feedforward + 3);
}

inline std::int64_t encode_scratch(const LayerShape& s) { return 5 * s.dim + s.feedforward + s.width; }

const TrainingKernels& training_kernels_base();
#ifdef RSIR_X86
const TrainingKernels& training_kernels_avx2();
const TrainingKernels& training_kernels_avx512();
#endif

}  // namespace rsir
