// The item-kNN as if one user's sequence had not been counted: a judge of what was generated for that user that has
// never seen the items which it is to find.
#pragma once

#include <cstdint>

#include "counting/item_knn.hpp"

namespace rsir {

// n lists of ids in 1..num_items: list r is ids[offsets[r]] .. ids[offsets[r + 1] - 1].
struct IdLists {
  const std::int32_t* ids;
  const std::int64_t* offsets;
};

struct UnseenSettings {
  ItemKnnFit fit;  // with which the neighbours were counted; what was cut off by `neighbours` stays off
  double age_decay;
  std::int64_t newest;
  std::int64_t tau;
};

// For each row, the rank of its best target after its history, at most tau + 1. A row's own sequence, which was one of
// those counted, is taken out of the counts. Items of the history compete with no target; scores that differ by less
// than a millionth are ties, of which the lower id comes first; a target without a score has no rank (tau + 1).
// occurrences: (num_items + 1,), of all sequences.
void ranks_unseen(const ItemKnnLists& knn, const std::int64_t* occurrences, std::int64_t rows, const IdLists& own,
                  const IdLists& histories, const IdLists& targets, const UnseenSettings& settings, int threads,
                  std::int64_t* ranks);

}  // namespace rsir
