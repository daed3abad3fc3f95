// Softmax cross-entropy and its gradients; rsir/ops/learning.py documents the meaning. Inputs have been checked:
// without positives every target of a position of weight other than 0 is a row of negatives.
#pragma once

#include <cstdint>

#include "isa/unit.hpp"

namespace rsir {

struct Softmax {
  std::int64_t positions, dim, columns;
  const float* queries;              // (positions, dim)
  const float* positives;            // (positions, dim), or null: a target is a row of negatives, the same as a column
  const float* negatives;            // (columns, dim)
  const std::int64_t* targets;       // (positions,)
  const std::int64_t* negative_ids;  // (columns,); not read without positives
  const float* weights;              // (positions,); a position of weight 0 takes no part
  const float* target_offsets;       // (positions,) added to the logits, or null
  const float* negative_offsets;     // (columns,) added to the logits, or null
};

struct SoftmaxGradients {  // of queries, positives (null without) and negatives; every element is set
  float *queries, *positives, *negatives;
};

// The loss. The same bits for any number of threads. With bfloat16, factors of the three products (of queries and
// negatives, and of shares with either) are rounded to it; sums are float32, and so is what targets add.
double softmax(const Unit&, const Softmax&, bool bfloat16, int threads, const SoftmaxGradients&);

}  // namespace rsir
