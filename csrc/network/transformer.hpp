// A Transformer layer over a packed batch, forward and backward, and a stack of them over histories;
// rsir/ops/learning.py and encoding.py document the meaning.
#pragma once

#include <cstdint>
#include <vector>

#include "isa/unit.hpp"

namespace rsir {

struct LayerBatch {
  std::int64_t rows;
  const std::int64_t* segments;  // (rows, width)
  const float* x;                // (rows, width, d)
  LayerBytes bytes;              // of all rows
};

// Floats that the forward pass saves for the backward pass.
inline std::int64_t layer_saved(const LayerShape& s, std::int64_t rows) {
  return rows * s.width * (6 * s.dim + 2 * s.feedforward + 2 + (s.reach ? s.dim + 1 : 0));
}

void layer_forward(const Unit&, const LayerShape&, const LayerWeights&, const LayerBatch&, int threads,
                   float* saved, float* y);

// Numbers in the layer's parameters.
inline std::int64_t layer_parameters(const LayerShape& s) {
  return 4 * s.dim * s.dim + 2 * s.dim * s.feedforward + 9 * s.dim + s.feedforward +
         (s.reach ? s.heads * s.reach + 3 * s.dim : 0);
}

// gradients: (layer_parameters,), one after the other in the order of LayerGradients. Every element of it and of grad_x
// is set; the same bits for any number of threads.
void layer_backward(const Unit&, const LayerShape&, const LayerWeights&, const LayerBatch&, int threads,
                    const float* saved, const float* grad_y, float* grad_x, float* gradients);

struct Histories {
  std::int64_t rows;
  const std::int32_t* items;    // of history r: items[offsets[r]..offsets[r + 1]), at least one
  const std::int64_t* offsets;  // (rows + 1,)
  const float* table;           // (N + 1, d) embeddings of the items
  const float* positions;       // (shape.width, d), or null; a longer history is cut to its last shape.width items
};

// out (rows, d): what the layers give at each history's last item; the same bits whatever the other histories are.
void encode(const Unit&, const LayerShape&, const std::vector<LayerWeights>&, const Histories&, int threads,
            float* out);

struct Steps {
  std::int64_t rows, slots;   // sequences that grow by one item; those there is room for
  const std::int64_t* slot;   // (rows,) distinct
  const std::int64_t* items;  // (rows,)
  const std::int64_t* at;     // (rows,) items that the slot holds already
  const float* table;
  const float* positions;     // or null
  float *keys, *values;       // (layers, slots, heads, shape.width, d / heads)
  float* low;                 // (layers, slots, d) what filters have averaged, or null without one
};

// out (rows, d): what encode gives for the sequences with their new items, to the bit; the caches grow with them.
void step(const Unit&, const LayerShape&, const std::vector<LayerWeights>&, const Steps&, int threads,
          float* out);

}  // namespace rsir
