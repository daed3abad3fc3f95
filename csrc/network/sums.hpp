// Sums over many parts that come out the same for any number of threads: the parts are shared out to a fixed number of
// groups, each with a sum of its own, and these are added in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "support/memory.hpp"
#include "support/parallel.hpp"

namespace rsir {

constexpr std::int64_t kGroups = 8;  // also the most threads of use

// Part number `group` of `groups` parts of 0..n.
inline std::int64_t part_begin(std::int64_t n, std::int64_t group, std::int64_t groups) { return n * group / groups; }

// Calls run(group, first, last, sum) for each group of parts first..last - 1 of 0..n, n at least 1; run sets or adds to
// all of sum (size), uninitialised before. Then total (size) is the sum of the groups' sums.
template <class Run>
void sum_in_groups(std::int64_t n, int threads, std::int64_t size, float* total, Run run) {
  constexpr std::int64_t kChunk = 8192;
  const std::int64_t groups = std::min(kGroups, n);
  const Aligned<float> sums = allocate_aligned<float>((groups - 1) * size);
  // The larger groups first: threads then end at about the same time.
  std::vector<std::int64_t> order;
  const auto parts = [&](std::int64_t group) {
    return part_begin(n, group + 1, groups) - part_begin(n, group, groups);
  };
  for (std::int64_t group = 0; group < groups; ++group) order.push_back(group);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return parts(a) > parts(b); });
  parallel_for(groups, threads, [&](std::int64_t task, int) {
    const std::int64_t group = order[static_cast<std::size_t>(task)];
    run(group, part_begin(n, group, groups), part_begin(n, group + 1, groups),
        group == 0 ? total : sums.get() + (group - 1) * size);
  });
  threads = useful_threads(static_cast<double>(groups * size), threads);
  parallel_for((size + kChunk - 1) / kChunk, threads, [&](std::int64_t chunk, int) {
    const std::int64_t last = std::min(size, (chunk + 1) * kChunk);
    for (std::int64_t group = 1; group < groups; ++group) {
      const float* sum = sums.get() + (group - 1) * size;
      for (std::int64_t i = chunk * kChunk; i < last; ++i) total[i] += sum[i];
    }
  });
}

}  // namespace rsir
