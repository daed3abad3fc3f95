#include "network/softmax.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "network/sums.hpp"

namespace rsir {

namespace {

constexpr std::int64_t kTile = kSoftmaxTile;
// Logits of a tile that stay in the second-level cache until their gradient is taken (1 MiB).
constexpr std::int64_t kFew = 4096;
// Those that stay in the third-level cache (8 MiB): with more columns than this they are computed twice, four products
// instead of three. At 11,925 columns that took 1.4 times as long.
constexpr std::int64_t kSome = 32768;
constexpr std::int64_t kSlice = 512;   // columns at a time with some: with their embeddings in half of that cache
constexpr std::int64_t kBlock = 1024;  // columns at a time with many
constexpr float kLowest = -std::numeric_limits<float>::infinity();

class Problem {
 public:
  Problem(const Unit& unit, const Softmax& softmax, const SoftmaxGradients& gradients)
      : unit(unit), s(softmax), g(gradients) {
    for (std::int64_t i = 0; i < s.positions; ++i)
      if (s.weights[i] != 0.0f) rows.push_back(i);
    used = static_cast<std::int64_t>(rows.size());
    tiles = (used + kTile - 1) / kTile;
    if (s.positives) {
      by_id.resize(static_cast<std::size_t>(s.columns));
      for (std::int64_t j = 0; j < s.columns; ++j) by_id[j] = {s.negative_ids[j], j};
      std::sort(by_id.begin(), by_id.end());
    }
    std::fill_n(g.queries, s.positions * s.dim, 0.0f);
    if (g.positives) std::fill_n(g.positives, s.positions * s.dim, 0.0f);
  }

  std::int64_t height(std::int64_t tile) const { return std::min(kTile, used - tile * kTile); }
  std::int64_t row(std::int64_t tile, std::int64_t i) const { return rows[tile * kTile + i]; }
  const float* query(std::int64_t row) const { return s.queries + row * s.dim; }
  const float* positive(std::int64_t row) const {
    return s.positives ? s.positives + row * s.dim : s.negatives + s.targets[row] * s.dim;
  }

  // (dim, kTile): the tile's queries as the right-hand side of a product; zero beyond its height.
  void gather_across(std::int64_t tile, float* out) const {
    const std::int64_t n = height(tile);
    for (std::int64_t i = 0; i < n; ++i) {
      const float* from = query(row(tile, i));
      for (std::int64_t t = 0; t < s.dim; ++t) out[t * kTile + i] = from[t];
    }
    for (std::int64_t t = 0; t < s.dim; ++t) std::fill(out + t * kTile + n, out + (t + 1) * kTile, 0.0f);
  }

  void gather_scaled(std::int64_t tile, const float* scale, float* out) const {
    for (std::int64_t i = 0; i < height(tile); ++i) {
      const float* from = query(row(tile, i));
      for (std::int64_t t = 0; t < s.dim; ++t) out[i * s.dim + t] = scale[i] * from[t];
    }
  }

  void target_logits(std::int64_t tile, float* out) const {
    std::fill_n(out, kTile, 0.0f);
    for (std::int64_t i = 0; i < height(tile); ++i) {
      const std::int64_t at = row(tile, i);
      out[i] = unit.dot(query(at), positive(at), s.dim) + (s.target_offsets ? s.target_offsets[at] : 0.0f);
    }
  }

  // out (end - begin, kTile): the logits of columns begin..end, -inf where a column is the position's target.
  void logits(std::int64_t tile, const float* across, std::int64_t begin, std::int64_t end, float* out) const {
    unit.product(false, end - begin, kTile, s.dim, s.negatives + begin * s.dim, s.dim, across, kTile, out, kTile,
                 false);
    if (s.negative_offsets)
      for (std::int64_t j = begin; j < end; ++j)
        for (std::int64_t i = 0; i < kTile; ++i) out[(j - begin) * kTile + i] += s.negative_offsets[j];
    for (std::int64_t i = 0; i < height(tile); ++i) {
      const std::int64_t target = s.targets[row(tile, i)];
      if (!s.positives) {
        if (begin <= target && target < end) out[(target - begin) * kTile + i] = kLowest;
        continue;
      }
      auto at = std::lower_bound(by_id.begin(), by_id.end(), std::make_pair(target, std::int64_t{-1}));
      for (; at != by_id.end() && at->first == target; ++at)
        if (begin <= at->second && at->second < end) out[(at->second - begin) * kTile + i] = kLowest;
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

// Few columns: all logits of a tile at once, tiles shared out, one sum of the negatives' gradients a group.
double few_columns(const Problem& p, int threads) {
  const std::int64_t d = p.s.dim, columns = p.s.columns, size = columns * d;
  if (p.tiles == 0) {
    std::fill_n(p.g.negatives, size, 0.0f);
    return 0.0;
  }
  double losses[kGroups] = {};
  sum_in_groups(p.tiles, threads, size, p.g.negatives,
                [&](std::int64_t group, std::int64_t first, std::int64_t last, float* sum) {
    const Aligned<float> shares = allocate_aligned<float>(columns * kTile);
    const Aligned<float> across = allocate_aligned<float>(d * kTile), rows = allocate_aligned<float>(d * kTile);
    float target[kTile], top[kTile], total[kTile], scale[kTile], pull[kTile];
    double exact[kTile];
    for (std::int64_t tile = first; tile < last; ++tile) {
      const std::int64_t n = p.height(tile);
      p.gather_across(tile, across.get());
      p.target_logits(tile, target);
      p.logits(tile, across.get(), 0, columns, shares.get());
      std::copy_n(target, kTile, top);
      std::fill_n(total, kTile, 0.0f);
      p.unit.raise_tops(shares.get(), columns, top);
      p.unit.exponentiate(shares.get(), columns, top, total);
      std::copy_n(total, kTile, exact);
      losses[group] += p.finish(tile, target, top, exact, scale, pull);
      p.unit.product(true, n, d, columns, shares.get(), kTile, p.s.negatives, d, rows.get(), d, false);
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t row = p.row(tile, i);
        const float *query = p.query(row), *positive = p.positive(row);
        for (std::int64_t t = 0; t < d; ++t) {
          p.g.queries[row * d + t] = scale[i] * rows[i * d + t] + pull[i] * positive[t];
          if (p.g.positives) p.g.positives[row * d + t] = pull[i] * query[t];
        }
      }
      p.gather_scaled(tile, scale, rows.get());
      p.unit.product(false, columns, d, n, shares.get(), kTile, rows.get(), d, sum, d, tile != first);
      if (!p.g.positives)
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int64_t row = p.row(tile, i);
          for (std::int64_t t = 0; t < d; ++t) sum[p.s.targets[row] * d + t] += pull[i] * p.query(row)[t];
        }
    }
  });
  double loss = 0.0;
  for (const double part : losses) loss += part;
  return loss;
}

// Some columns: each thread takes a tile at a time past all columns, with tops that rise on the way, and keeps the shares,
// each block's of its own tops. Then, with the sums known, blocks of columns are shared out, and each takes its gradient
// from these tiles in their order: there is one sum alone.
double some_columns(const Problem& p, int threads) {
  const std::int64_t d = p.s.dim, columns = p.s.columns, blocks = (columns + kSlice - 1) / kSlice;
  const std::int64_t together = std::clamp<std::int64_t>(p.tiles, 1, threads);
  if (p.tiles == 0) std::fill_n(p.g.negatives, columns * d, 0.0f);
  struct Tile {
    Aligned<float> shares, across, rows, tops, scale;
  };
  std::vector<Tile> kept(static_cast<std::size_t>(together));
  for (Tile& own : kept)
    own = {allocate_aligned<float>(columns * kTile), allocate_aligned<float>(d * kTile),
           allocate_aligned<float>(d * kTile), allocate_aligned<float>((blocks + 1) * kTile),
           allocate_aligned<float>(kTile)};
  std::vector<double> losses(static_cast<std::size_t>(p.tiles));
  std::vector<float> pulls(static_cast<std::size_t>(p.tiles * kTile));
  const auto pass = [&](std::int64_t tile, const Tile& own) {
    const std::int64_t n = p.height(tile);
    float target[kTile], top[kTile];
    double exact[kTile] = {};
    p.gather_across(tile, own.across.get());
    p.target_logits(tile, target);
    std::copy_n(target, kTile, top);
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t begin = block * kSlice, end = std::min(columns, begin + kSlice);
      float before[kTile], total[kTile] = {};
      float* shares = own.shares.get() + begin * kTile;
      std::copy_n(top, kTile, before);
      p.logits(tile, own.across.get(), begin, end, shares);
      p.unit.raise_tops(shares, end - begin, top);
      p.unit.exponentiate(shares, end - begin, top, total);
      std::copy_n(top, kTile, own.tops.get() + block * kTile);
      for (std::int64_t i = 0; i < kTile; ++i) {
        if (block > 0 && top[i] != before[i]) {
          const float factor = std::exp(before[i] - top[i]);
          exact[i] *= factor;
          for (std::int64_t t = 0; t < d; ++t) own.rows.get()[i * d + t] *= factor;
        }
        exact[i] += total[i];
      }
      p.unit.product(true, n, d, end - begin, shares, kTile, p.s.negatives + begin * d, d, own.rows.get(), d,
                     block > 0);
    }
    std::copy_n(top, kTile, own.tops.get() + blocks * kTile);
    float* pull = &pulls[static_cast<std::size_t>(tile * kTile)];
    losses[static_cast<std::size_t>(tile)] = p.finish(tile, target, top, exact, own.scale.get(), pull);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t row = p.row(tile, i);
      const float *query = p.query(row), *positive = p.positive(row);
      for (std::int64_t t = 0; t < d; ++t) {
        p.g.queries[row * d + t] = own.scale.get()[i] * own.rows.get()[i * d + t] + pull[i] * positive[t];
        if (p.g.positives) p.g.positives[row * d + t] = pull[i] * query[t];
      }
    }
  };
  for (std::int64_t first = 0; first < p.tiles; first += together) {
    const std::int64_t here = std::min(together, p.tiles - first);
    parallel_for(here, threads, [&](std::int64_t at, int) { pass(first + at, kept[static_cast<std::size_t>(at)]); });
    parallel_for(blocks, threads, [&](std::int64_t block, int) {
      const std::int64_t begin = block * kSlice, end = std::min(columns, begin + kSlice);
      const Aligned<float> scaled = allocate_aligned<float>(d * kTile);
      for (std::int64_t at = 0; at < here; ++at) {
        const Tile& own = kept[static_cast<std::size_t>(at)];
        const float *top = own.tops.get() + blocks * kTile, *then = own.tops.get() + block * kTile;
        float scale[kTile];
        for (std::int64_t i = 0; i < p.height(first + at); ++i)
          scale[i] = then[i] == top[i] ? own.scale.get()[i] : own.scale.get()[i] * std::exp(then[i] - top[i]);
        p.gather_scaled(first + at, scale, scaled.get());
        p.unit.product(false, end - begin, d, p.height(first + at), own.shares.get() + begin * kTile, kTile,
                       scaled.get(), d, p.g.negatives + begin * d, d, first + at > 0);
      }
    });
  }
  for (std::int64_t i = 0; i < p.used && !p.g.positives; ++i) {
    const float* query = p.query(p.rows[static_cast<std::size_t>(i)]);
    float* to_target = p.g.negatives + p.s.targets[p.rows[static_cast<std::size_t>(i)]] * d;
    for (std::int64_t t = 0; t < d; ++t) to_target[t] += pulls[static_cast<std::size_t>(i)] * query[t];
  }
  double loss = 0.0;
  for (const double part : losses) loss += part;
  return loss;
}

// Many columns: blocks of them shared out. First each group's tops and totals, then, with those of all groups known,
// the logits again and the gradients; one sum of the queries' gradients a group.
double many_columns(const Problem& p, int threads) {
  const std::int64_t d = p.s.dim, padded = p.tiles * kTile, size = p.used * d;
  const std::int64_t blocks = (p.s.columns + kBlock - 1) / kBlock, groups = std::min(kGroups, blocks);
  const Aligned<float> across = allocate_aligned<float>(padded * d), scaled = allocate_aligned<float>(padded * d);
  const Aligned<float> target = allocate_aligned<float>(padded), top = allocate_aligned<float>(padded);
  const Aligned<float> scale = allocate_aligned<float>(padded), pull = allocate_aligned<float>(padded);
  const Aligned<float> tops = allocate_aligned<float>(groups * padded), sums = allocate_aligned<float>(groups * size);
  const Aligned<double> totals = allocate_aligned<double>(groups * padded);
  parallel_for(p.tiles, threads, [&](std::int64_t tile, int) {
    p.gather_across(tile, across.get() + tile * kTile * d);
    p.target_logits(tile, target.get() + tile * kTile);
  });
  const auto each_block = [&](std::int64_t group, auto use) {
    const Aligned<float> shares = allocate_aligned<float>(kBlock * kTile);
    for (std::int64_t block = part_begin(blocks, group, groups); block < part_begin(blocks, group + 1, groups); ++block)
      for (std::int64_t tile = 0; tile < p.tiles; ++tile) {
        const std::int64_t begin = block * kBlock, end = std::min(p.s.columns, begin + kBlock);
        p.logits(tile, across.get() + tile * kTile * d, begin, end, shares.get());
        use(tile, begin, end, shares.get());
      }
  };
  parallel_for(groups, threads, [&](std::int64_t group, int) {
    float* own_tops = tops.get() + group * padded;
    double* own_totals = totals.get() + group * padded;
    std::copy_n(target.get(), padded, own_tops);
    std::fill_n(own_totals, padded, 0.0);
    each_block(group, [&](std::int64_t tile, std::int64_t begin, std::int64_t end, float* shares) {
      float before[kTile], total[kTile] = {};
      float* here = own_tops + tile * kTile;
      std::copy_n(here, kTile, before);
      p.unit.raise_tops(shares, end - begin, here);
      p.unit.exponentiate(shares, end - begin, here, total);
      for (std::int64_t i = 0; i < kTile; ++i) {
        double& sum = own_totals[tile * kTile + i];
        sum = (sum > 0.0 ? sum * std::exp(static_cast<double>(before[i]) - here[i]) : sum) + total[i];
      }
    });
  });
  std::vector<double> losses(static_cast<std::size_t>(p.tiles));
  parallel_for(p.tiles, threads, [&](std::int64_t tile, int) {
    const std::int64_t first = tile * kTile;
    double total[kTile];
    for (std::int64_t i = 0; i < kTile; ++i) {
      float best = target[first + i];
      for (std::int64_t group = 0; group < groups; ++group) best = std::max(best, tops[group * padded + first + i]);
      total[i] = 0.0;
      for (std::int64_t group = 0; group < groups; ++group) {
        const double part = totals[group * padded + first + i];
        if (part != 0.0) total[i] += part * std::exp(static_cast<double>(tops[group * padded + first + i]) - best);
      }
      top[first + i] = best;
    }
    losses[tile] = p.finish(tile, &target[first], &top[first], total, &scale[first], &pull[first]);
    p.gather_scaled(tile, &scale[first], scaled.get() + first * d);
  });
  std::fill_n(sums.get(), groups * size, 0.0f);
  parallel_for(groups, threads, [&](std::int64_t group, int) {
    float ignored[kTile] = {};
    each_block(group, [&](std::int64_t tile, std::int64_t begin, std::int64_t end, float* shares) {
      const std::int64_t n = p.height(tile), first = tile * kTile;
      p.unit.exponentiate(shares, end - begin, &top[first], ignored);
      p.unit.product(true, n, d, end - begin, shares, kTile, p.s.negatives + begin * d, d,
                  sums.get() + group * size + first * d, d, true);
      p.unit.product(false, end - begin, d, n, shares, kTile, scaled.get() + first * d, d, p.g.negatives + begin * d, d,
                  tile > 0);
    });
  });
  if (p.used == 0) std::fill_n(p.g.negatives, p.s.columns * d, 0.0f);
  for (std::int64_t i = 0; i < p.used; ++i) {
    const std::int64_t row = p.rows[i];
    const float *query = p.query(row), *positive = p.positive(row);
    float* to_target = p.g.positives ? p.g.positives + row * d : p.g.negatives + p.s.targets[row] * d;
    for (std::int64_t t = 0; t < d; ++t) {
      float sum = 0.0f;
      for (std::int64_t group = 0; group < groups; ++group) sum += sums[group * size + i * d + t];
      p.g.queries[row * d + t] = scale[i] * sum + pull[i] * positive[t];
      to_target[t] += pull[i] * query[t];
    }
  }
  double loss = 0.0;
  for (const double part : losses) loss += part;
  return loss;
}

}  // namespace

double softmax(const Unit& unit, const Softmax& s, int threads, const SoftmaxGradients& gradients) {
  const Problem problem(unit, s, gradients);
  const double products = 6.0 * static_cast<double>(problem.used) * s.columns * s.dim;
  const int useful = useful_threads(products, threads);
  if (s.columns <= kFew) return few_columns(problem, useful);
  return s.columns <= kSome ? some_columns(problem, useful) : many_columns(problem, useful);
}

}  // namespace rsir
