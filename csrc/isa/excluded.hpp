// Excluded ids among the candidates of a row. Internal linkage; see isa/unit.hpp for why.
#pragma once

#include <cstdint>

namespace {

// Candidates whose ids are in excluded[at..end) get the lowest value; returns how many did. Both ascend, candidates
// that have it already do not count, and `at` moves on to the first id that later candidates may have.
template <class T>
std::int64_t ban_excluded(const std::int32_t* excluded, std::int64_t& at, std::int64_t end, T lowest, T* values,
                          const std::int32_t* ids, std::int64_t n) {
  std::int64_t low = 0, banned = 0;
  if (end - at > n) {  // look each candidate up in the longer list
    for (std::int64_t i = 0; i < n && at < end; ++i) {
      if (ids[i] < excluded[at]) continue;
      for (std::int64_t size = end - at; size > 1;) {
        const std::int64_t half = size / 2;
        at += excluded[at + half - 1] < ids[i] ? half : 0;
        size -= half;
      }
      if (excluded[at] < ids[i]) ++at;
      if (at == end || excluded[at] != ids[i] || values[i] == lowest) continue;
      values[i] = lowest;
      ++banned;
    }
    return banned;
  }
  for (; at < end && excluded[at] <= ids[n - 1]; ++at) {
    for (std::int64_t size = n - low; size > 1;) {  // to the first id not below, without a branch
      const std::int64_t half = size / 2;
      low += ids[low + half - 1] < excluded[at] ? half : 0;
      size -= half;
    }
    if (ids[low] != excluded[at] || values[low] == lowest) continue;
    values[low] = lowest;
    ++banned;
  }
  return banned;
}

}  // namespace
