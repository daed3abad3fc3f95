// The ops of rsir/ops over plain arrays; rsir/ops documents their meaning.
//
// Inputs have been checked: ids of targets, excluded and pool are in 1..num_items, offsets ascend,
// counters are in 0..2^32-1, k and tau are at least 1, tau is at most num_items, temperature is positive. Where scores
// are added, "logit" is the sum.
#pragma once

#include <cstdint>

#include "catalogue/table.hpp"

namespace rsir {

struct Ragged {  // row b owns ids[offsets[b]..offsets[b+1])
  const std::int32_t* ids = nullptr;
  const std::int64_t* offsets = nullptr;  // null: no such lists
};

// Scores added to the logits of a few items: to item ids[j] of row b, values[j]; ids ascend within a row, each once.
struct Added {
  const std::int32_t* ids = nullptr;
  const std::int64_t* offsets = nullptr;  // null: nothing is added
  const float* values = nullptr;
};

struct Queries {
  const float* data;  // (rows, dim)
  std::int64_t rows;
};

struct Draw {
  std::int64_t k;
  double temperature;
  std::uint64_t seed;
  const std::int64_t* counters;  // (rows, 3); not read when k = 1
};

void rank_within(const Table&, Queries, Ragged targets, std::int64_t tau, int threads, std::int64_t* ranks,
                 Added added = {});

// counts[b] = how many items score above bars[b], or limit if those are more; a NaN has none above it.
void count_above(const Table&, Queries, const float* bars, std::int64_t limit, int threads, std::int64_t* counts,
                 Added added = {});

// targets: (rows,) in 1..num_items
void place_within(const Table&, Queries, const std::int32_t* targets, Ragged excluded, std::int64_t tau, int threads,
                  std::int64_t* places, Added added = {});

void topk(const Table&, Queries, std::int64_t k, Ragged excluded, int threads, std::int64_t* ids, float* logits,
          Added added = {});

void topk_sample(const Table&, Queries, const Draw&, Ragged excluded, int threads, std::int64_t* ids,
                 float* logits, Added added = {});

void pool_sample(const Table&, Queries, Ragged pool, const Draw&, Ragged excluded, int threads,
                 std::int64_t* ids, float* logits, Added added = {});

void rank_and_sample(const Table&, Queries, Ragged targets, std::int64_t tau, const Draw&, Ragged excluded,
                     int threads, std::int64_t* ranks, std::int64_t* ids, float* logits, Added added = {});

// The k best items of each row whose rank is within tau; ids (rows, k) are 0 elsewhere.
void rank_and_topk(const Table&, Queries, Ragged targets, std::int64_t tau, std::int64_t k, Ragged excluded,
                   int threads, std::int64_t* ranks, std::int64_t* ids, float* logits, Added added = {});

// logits[i] of item lists.ids[i] with the query of its row, to the bit those of the scans; a NaN becomes -inf.
void logits_of(const Table&, Queries, Ragged lists, int threads, float* logits);

// votes[b] = number of distinct entries s of row b of sources with items[b] among graph[s]; graph is
// (num_items + 1, degree) and its zeros are padding.
void neighbour_votes(const std::int32_t* graph, std::int64_t degree, const std::int32_t* items, std::int64_t rows,
                     Ragged sources, int threads, std::int64_t* votes);

}  // namespace rsir
