// What every way of computing the softmax works on: the positions that take part, in tiles, and their logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "network/softmax.hpp"

namespace rsir {

class SoftmaxProblem {
 public:
  SoftmaxProblem(const Unit& unit, const Softmax& softmax, const SoftmaxGradients& gradients)
      : unit(unit), s(softmax), g(gradients) {
    for (std::int64_t i = 0; i < s.positions; ++i)
      if (s.weights[i] != 0.0f) rows.push_back(i);
    used = static_cast<std::int64_t>(rows.size());
    tiles = (used + kSoftmaxTile - 1) / kSoftmaxTile;
    if (s.positives) {
      by_id.resize(static_cast<std::size_t>(s.columns));
      for (std::int64_t j = 0; j < s.columns; ++j) by_id[j] = {s.negative_ids[j], j};
      std::sort(by_id.begin(), by_id.end());
    }
    std::fill_n(g.queries, s.positions * s.dim, 0.0f);
    if (g.positives) std::fill_n(g.positives, s.positions * s.dim, 0.0f);
  }

  std::int64_t height(std::int64_t tile) const { return std::min(kSoftmaxTile, used - tile * kSoftmaxTile); }
  std::int64_t row(std::int64_t tile, std::int64_t i) const { return rows[tile * kSoftmaxTile + i]; }
  const float* query(std::int64_t row) const { return s.queries + row * s.dim; }
  const float* positive(std::int64_t row) const {
    return s.positives ? s.positives + row * s.dim : s.negatives + s.targets[row] * s.dim;
  }

  // (dim, kSoftmaxTile): the tile's queries as the right-hand side of a product; zero beyond its height.
  void gather_across(std::int64_t tile, float* out) const {
    const std::int64_t n = height(tile);
    for (std::int64_t i = 0; i < n; ++i) {
      const float* from = query(row(tile, i));
      for (std::int64_t t = 0; t < s.dim; ++t) out[t * kSoftmaxTile + i] = from[t];
    }
    for (std::int64_t t = 0; t < s.dim; ++t) std::fill(out + t * kSoftmaxTile + n, out + (t + 1) * kSoftmaxTile, 0.0f);
  }

  void gather_scaled(std::int64_t tile, const float* scale, float* out) const {
    for (std::int64_t i = 0; i < height(tile); ++i) {
      const float* from = query(row(tile, i));
      for (std::int64_t t = 0; t < s.dim; ++t) out[i * s.dim + t] = scale[i] * from[t];
    }
  }

  void target_logits(std::int64_t tile, float* out) const {
    std::fill_n(out, kSoftmaxTile, 0.0f);
    for (std::int64_t i = 0; i < height(tile); ++i) {
      const std::int64_t at = row(tile, i);
      out[i] = unit.dot(query(at), positive(at), s.dim) + (s.target_offsets ? s.target_offsets[at] : 0.0f);
    }
  }

  // out (end - begin, kSoftmaxTile): the logits of columns begin..end, -inf where a column is the position's target.
  void logits(std::int64_t tile, const float* across, std::int64_t begin, std::int64_t end, float* out) const {
    unit.product(false, end - begin, kSoftmaxTile, s.dim, s.negatives + begin * s.dim, s.dim, across, kSoftmaxTile,
                 out, kSoftmaxTile, false);
    finish_logits(tile, begin, end, out);
  }

  // The same from the products alone.
  void finish_logits(std::int64_t tile, std::int64_t begin, std::int64_t end, float* out) const {
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    if (s.negative_offsets)
      for (std::int64_t j = begin; j < end; ++j)
        for (std::int64_t i = 0; i < kSoftmaxTile; ++i) out[(j - begin) * kSoftmaxTile + i] += s.negative_offsets[j];
    for (std::int64_t i = 0; i < height(tile); ++i) {
      const std::int64_t target = s.targets[row(tile, i)];
      if (!s.positives) {
        if (begin <= target && target < end) out[(target - begin) * kSoftmaxTile + i] = lowest;
        continue;
      }
      auto at = std::lower_bound(by_id.begin(), by_id.end(), std::make_pair(target, std::int64_t{-1}));
      for (; at != by_id.end() && at->first == target; ++at)
        if (begin <= at->second && at->second < end) out[(at->second - begin) * kSoftmaxTile + i] = lowest;
    }
  }

  // From top and total of all logits but the target's: the scale that makes gradients of shares, and the target's own.
  // Returns the tile's loss.
  double finish(std::int64_t tile, const float* target, float* top, double* total, float* scale, float* pull) const {
    double loss = 0.0;
    for (std::int64_t i = 0; i < height(tile); ++i) {
      const double share = std::exp(static_cast<double>(target[i]) - top[i]), weight = s.weights[row(tile, i)];
      const double sum = total[i] + share;
      loss += weight * (std::log(sum) + top[i] - target[i]);
      scale[i] = static_cast<float>(weight / sum);
      pull[i] = static_cast<float>(weight * (share / sum - 1.0));
    }
    return loss;
  }

  const Unit& unit;
  const Softmax& s;
  const SoftmaxGradients& g;
  std::vector<std::int64_t> rows;  // positions that take part
  std::int64_t used = 0, tiles = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> by_id;  // (id, column), ascending
};

// The loss by way of shares that are kept, a tile of them a thread; with products of float32 or of bfloat16.
double softmax_of_kept(const SoftmaxProblem&, bool bfloat16, int threads);

}  // namespace rsir
