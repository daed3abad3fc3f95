// Training batches: sequences laid one after the other into rows; rsir/data/packing.py documents the meaning. Inputs
// have been checked.
#pragma once

#include <cstdint>

namespace rsir {

// Best-fit decreasing: row and column (n,) are where each sequence of lengths (n,), each 1..width, starts. Returns the
// number of rows.
std::int64_t assign_rows(std::int64_t n, const std::int64_t* lengths, std::int64_t width, std::int64_t* row,
                         std::int64_t* column);

struct PackedSequences {
  std::int64_t n;
  const std::int64_t *ends, *lengths;  // (n,) inputs of number i: the lengths[i] items before place ends[i] - 1
  const std::int64_t *row, *column;    // (n,)
};

// grid (4, rows, width): inputs, targets, places, segments from 1; weights (rows, width). Both are zeros before.
void fill_rows(const PackedSequences&, const std::int32_t* items, const float* weight, std::int64_t rows,
               std::int64_t width, std::int64_t* grid, float* weights);

struct Soft {
  const std::int32_t* ids;  // (nnz, choices), 0 behind the last; in the first place: none
  const float* cumulative;  // (nnz, choices)
  std::int64_t choices;
  double share;
  const double *replaces, *draws;  // (sum of lengths,) in [0, 1)
};

// Replaces a share of targets (rows, width) by draws from their soft targets.
void soften_rows(const PackedSequences&, const Soft&, std::int64_t width, std::int64_t* targets);

}  // namespace rsir
