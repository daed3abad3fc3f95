#include "data/packing.hpp"

#include <vector>

namespace rsir {

std::int64_t assign_rows(std::int64_t n, const std::int64_t* lengths, std::int64_t width, std::int64_t* row,
                         std::int64_t* column) {
  // Sequences in order of falling length, the first one first among equals (a counting sort).
  std::vector<std::int64_t> start(static_cast<std::size_t>(width + 2), 0), order(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) ++start[width - lengths[i] + 1];
  for (std::int64_t i = 0; i <= width; ++i) start[i + 1] += start[i];
  for (std::int64_t i = 0; i < n; ++i) order[start[width - lengths[i]]++] = i;
  // Rows with equal room form a stack: head[room] is its top, below[row] what lies under a row.
  std::vector<std::int64_t> head(static_cast<std::size_t>(width + 1), -1), below(static_cast<std::size_t>(n));
  std::int64_t rows = 0;
  for (const std::int64_t i : order) {
    std::int64_t room = lengths[i];
    while (room <= width && head[room] < 0) ++room;
    if (room > width) {
      room = width;
      row[i] = rows++;
    } else {
      row[i] = head[room];
      head[room] = below[row[i]];
    }
    column[i] = width - room;
    below[row[i]] = head[room - lengths[i]];
    head[room - lengths[i]] = row[i];
  }
  return rows;
}

void fill_rows(const PackedSequences& p, const std::int32_t* items, const float* weight, std::int64_t rows,
               std::int64_t width, std::int64_t* grid, float* weights) {
  const std::int64_t size = rows * width;
  std::vector<std::int64_t> segments(static_cast<std::size_t>(rows), 0);
  for (std::int64_t i = 0; i < p.n; ++i) {
    const std::int64_t segment = ++segments[p.row[i]], at = p.row[i] * width + p.column[i];
    const std::int32_t* from = items + p.ends[i] - 1 - p.lengths[i];
    for (std::int64_t j = 0; j < p.lengths[i]; ++j) {
      grid[at + j] = from[j];
      grid[size + at + j] = from[j + 1];
      grid[2 * size + at + j] = j;
      grid[3 * size + at + j] = segment;
      weights[at + j] = weight[i];
    }
  }
}

void soften_rows(const PackedSequences& p, const Soft& soft, std::int64_t width, std::int64_t* targets) {
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < p.n; ++i)
    for (std::int64_t j = 0; j < p.lengths[i]; ++j, ++at) {
      const std::int64_t interaction = p.ends[i] - p.lengths[i] + j;
      const std::int32_t* ids = soft.ids + interaction * soft.choices;
      const float* cumulative = soft.cumulative + interaction * soft.choices;
      if (!(soft.replaces[at] < soft.share) || ids[0] <= 0) continue;
      std::int64_t place = 0;
      while (place + 1 < soft.choices && cumulative[place] <= soft.draws[at]) ++place;
      while (ids[place] == 0) --place;
      targets[p.row[i] * width + p.column[i] + j] = ids[place];
    }
}

}  // namespace rsir
