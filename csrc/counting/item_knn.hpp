// A sequential item-kNN: how often items follow each other in sequences, near ones counted more, and what that says of
// the next item after a history. Every answer is the same for any number of threads.
#pragma once

#include <cstdint>
#include <vector>

namespace rsir {

// n lists one after the other: list r is entries offsets[r] .. offsets[r + 1] - 1.
struct SparseLists {
  std::vector<std::int64_t> offsets;
  std::vector<std::int32_t> ids;
  std::vector<float> values;
};

struct SequencesView {
  const std::int32_t* items;    // ids in 1..num_items
  const std::int64_t* offsets;  // (rows + 1,)
  std::int64_t rows;
  std::int64_t num_items;
};

struct ItemKnnFit {
  int window;               // two items at most so far apart are a pair
  double decay;             // a pair at distance g counts decay^(g - 1)
  double backward;          // weight of an item that comes before, beside 1 for one that comes after
  double history_exponent;  // sums are divided by the occurrences of the history's item to this power
  double item_exponent;     // and by those of the item that goes with it to this one
  std::int64_t neighbours;  // so many are kept of an item, those of the largest values; ties: the lower id
};

// For each item 0..num_items (0 is padding, its list is empty) the items that go with it and their values, by ascending
// id. Memory: what is kept, an index of all positions, and num_items doubles a thread.
SparseLists fit_item_knn(const SequencesView& sequences, const ItemKnnFit& settings, int threads);

struct ItemKnnLists {
  const std::int64_t* offsets;  // (num_items + 2,)
  const std::int32_t* ids;
  const float* values;
  std::int64_t num_items;
};

struct Histories {
  const std::int32_t* items;   // ids in 1..num_items
  const std::int64_t* begins;  // (rows,) history r is items[begins[r]] .. items[ends[r] - 1], oldest first
  const std::int64_t* ends;
  std::int64_t rows;
};

struct ItemKnnScoring {
  double decay;         // the item of age a, 0 for the newest, counts decay^a
  std::int64_t newest;  // older items than so many are not looked at
  std::int64_t most;    // items listed a history, those of the largest shares; ties: the lower id
  bool without_own;     // leave out the items of the history, all of it
};

// For each history the items that its own go with, by ascending id, and their shares of the summed values.
SparseLists score_histories(const ItemKnnLists& knn, const Histories& histories, const ItemKnnScoring& settings,
                            int threads);

}  // namespace rsir
