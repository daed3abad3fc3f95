#include "network/softmax.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "network/softmax_problem.hpp"
#include "network/sums.hpp"

namespace rsir {

namespace {

constexpr std::int64_t kTile = kSoftmaxTile;
// Logits of a tile that stay in the second-level cache until their gradient is taken (1 MiB).
constexpr std::int64_t kFew = 4096;
// Those that stay in the third-level cache (8 MiB): with more columns than this they are computed twice, four products
// instead of three. At 11,925 columns that took 1.4 times as long.
constexpr std::int64_t kSome = 32768;
constexpr std::int64_t kBlock = 1024;  // columns at a time then

// Few columns: all logits of a tile at once, tiles shared out, one sum of the negatives' gradients a group.
double few_columns(const SoftmaxProblem& p, int threads) {
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

// Many columns: blocks of them shared out. First each group's tops and totals, then, with those of all groups known,
// the logits again and the gradients; one sum of the queries' gradients a group.
double many_columns(const SoftmaxProblem& p, int threads) {
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

double softmax(const Unit& unit, const Softmax& s, bool bfloat16, int threads, const SoftmaxGradients& gradients) {
  const SoftmaxProblem problem(unit, s, gradients);
  const double products = 6.0 * static_cast<double>(problem.used) * s.columns * s.dim;
  const int useful = useful_threads(products, threads);
  if (bfloat16 || (kFew < s.columns && s.columns <= kSome)) return softmax_of_kept(problem, bfloat16, useful);
  return s.columns <= kFew ? few_columns(problem, useful) : many_columns(problem, useful);
}

}  // namespace rsir
