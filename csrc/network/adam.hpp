// Adam on a table of which a training step looked some rows up. Large ones: on these rows, while the others catch up
// when they are looked up next. Small ones: on all rows.
#pragma once

#include <cstdint>

#include "isa/unit.hpp"

namespace rsir {

struct AdamSettings {
  double rate, beta1, beta2, epsilon;
  double decay;  // of the average, which in step j keeps min(decay, j / (9 + j)) of itself, and nothing in the first
};

struct AdamTable {
  float *weights, *first, *second;  // (rows, dim): parameters, means of gradients and of their squares
  float* average;                   // (rows, dim): moving average of the weights, null if none is kept
  std::int32_t* last;               // (rows): the step up to which a row is right; 0 where it never had a gradient.
                                    // Null for adam_whole, after which all are.
  std::int64_t rows, dim;
  std::int64_t padding;             // a row whose gradients are taken for zeros, or -1
};

// Bring rows, all or those of ids (n), which may repeat, to where steps without gradients up to `step` would move them.
void adam_catch_up(const AdamSettings& settings, const AdamTable& table, const std::int64_t* ids, std::int64_t n,
                   std::int64_t step, int threads);

// One step with gradients (n, dim) of the rows of ids, those of one row added up in their order.
void adam_step(const AdamSettings& settings, const AdamTable& table, const std::int64_t* ids, std::int64_t n,
               const float* gradients, std::int64_t step, int threads);

// One step of the whole table; gradients as for adam_step, or, without ids, of all rows.
void adam_whole(const Unit& unit, const AdamSettings& settings, const AdamTable& table,
                const std::int64_t* ids, std::int64_t n, const float* gradients, std::int64_t step, int threads);

}  // namespace rsir
