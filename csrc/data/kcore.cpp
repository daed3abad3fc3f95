#include "data/kcore.hpp"

#include <algorithm>
#include <vector>

namespace rsir {

void k_core(std::int64_t n, const std::int64_t* users, const std::int64_t* items, std::int64_t num_users,
            std::int64_t num_items, std::int64_t k, bool* alive) {
  // One graph: nodes are users, then items; an event is an edge. Every edge is looked at twice at most.
  const std::int64_t nodes = num_users + num_items;
  std::vector<std::int64_t> starts(static_cast<std::size_t>(nodes + 1), 0), edges(static_cast<std::size_t>(2 * n));
  for (std::int64_t i = 0; i < n; ++i) ++starts[users[i] + 1], ++starts[num_users + items[i] + 1];
  for (std::int64_t node = 0; node < nodes; ++node) starts[node + 1] += starts[node];
  std::vector<std::int64_t> next(starts.begin(), starts.end() - 1);
  for (std::int64_t i = 0; i < n; ++i) edges[next[users[i]]++] = i, edges[next[num_users + items[i]]++] = i;
  std::vector<std::int64_t> degrees(static_cast<std::size_t>(nodes)), waiting;
  for (std::int64_t node = 0; node < nodes; ++node) {
    degrees[node] = starts[node + 1] - starts[node];
    if (degrees[node] < k) waiting.push_back(node);
  }
  std::fill_n(alive, n, true);
  while (!waiting.empty()) {
    const std::int64_t node = waiting.back();
    waiting.pop_back();
    for (std::int64_t at = starts[node]; at < starts[node + 1]; ++at) {
      const std::int64_t edge = edges[at];
      if (!alive[edge]) continue;
      alive[edge] = false;
      const std::int64_t other = users[edge] + items[edge] + num_users - node;
      if (--degrees[other] == k - 1) waiting.push_back(other);
    }
  }
}

}  // namespace rsir
