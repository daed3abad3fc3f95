#include "network/softmax_problem.hpp"
#include "support/bfloat16.hpp"
#include "support/memory.hpp"
#include "support/parallel.hpp"

namespace rsir {

namespace {

constexpr std::int64_t kTile = kSoftmaxTile;
constexpr std::int64_t kHalf = kTile / 2;
constexpr std::int64_t kSlice = 512;  // columns at a time: with their embeddings in half of the second-level cache

// A tile of positions past all columns, slice by slice: what is kept of it until its shares are used.
struct Tile {
  Aligned<float> shares;   // (columns, kTile), each slice's over its own tops
  Aligned<float> queries;  // as a right-hand side: (d, kTile), then (height, d) times scales
  Aligned<float> sums;     // (height, d): shares times negatives
  Aligned<float> tops;     // (slices + 1, kTile), those of all columns last
  float scale[kTile];
};

// The three products and what lies between them, in float32.
class Single {
 public:
  explicit Single(const SoftmaxProblem& problem) : p(problem), d(problem.s.dim) {}

  Tile make(std::int64_t slices) const {
    return {allocate_aligned<float>(p.s.columns * kTile), allocate_aligned<float>(d * kTile),
            allocate_aligned<float>(d * kTile), allocate_aligned<float>((slices + 1) * kTile), {}};
  }

  void prepare(int) {}

  class Pass {  // of one tile
   public:
    Pass(const Single& products, std::int64_t tile, const Tile& kept) : o(products), number(tile), own(kept) {
      o.p.gather_across(tile, own.queries.get());
    }
    float* logits(std::int64_t begin, std::int64_t end) const {
      float* out = own.shares.get() + begin * kTile;
      o.p.logits(number, own.queries.get(), begin, end, out);
      return out;
    }
    // Logits become shares, which are added to total and, times negatives, to the sums.
    void weigh(std::int64_t begin, std::int64_t end, float* logits, const float* top, float* total) const {
      o.p.unit.exponentiate(logits, end - begin, top, total);
      o.p.unit.product(true, o.p.height(number), o.d, end - begin, logits, kTile, o.p.s.negatives + begin * o.d, o.d,
                       own.sums.get(), o.d, begin > 0);
    }

   private:
    const Single& o;
    const std::int64_t number;
    const Tile& own;
  };

  // The gradient of a slice's negatives becomes, or is added to by, shares times scaled queries.
  void add(std::int64_t tile, const Tile& own, const float* scale, std::int64_t begin, std::int64_t end, bool more,
           float* scaled) const {
    p.gather_scaled(tile, scale, scaled);
    p.unit.product(false, end - begin, d, p.height(tile), own.shares.get() + begin * kTile, kTile, scaled, d,
                   p.g.negatives + begin * d, d, more);
  }

 private:
  const SoftmaxProblem& p;
  const std::int64_t d;
};

// The same with factors rounded to bfloat16, in pairs. Pairs of a sum over d are of places t and t + half; of one over
// positions, of places i and i + kTile / 2; of one over columns, of columns 2 j and 2 j + 1.
class Paired {
 public:
  explicit Paired(const SoftmaxProblem& problem)
      : p(problem), d(problem.s.dim), half((d + 1) / 2), product(best_pair_product(problem.unit)) {}

  Tile make(std::int64_t slices) const {
    return {allocate_aligned<float>(p.s.columns * kHalf), allocate_aligned<float>(half * kTile),
            allocate_aligned<float>(d * kTile), allocate_aligned<float>((slices + 1) * kTile), {}};
  }

  void prepare(int threads) {
    const std::int64_t columns = p.s.columns;
    within = allocate_aligned<float>(columns * half);
    between = allocate_aligned<float>((columns + 1) / 2 * d);
    parallel_for((columns + kSlice - 1) / kSlice, threads, [&](std::int64_t slice, int) {
      const std::int64_t begin = slice * kSlice, end = std::min(columns, begin + kSlice);
      for (std::int64_t j = begin; j < end; ++j) {
        const float* row = p.s.negatives + j * d;
        for (std::int64_t t = 0; t < d - half; ++t) store_pair(&within[j * half + t], row[t], row[t + half]);
        if (d % 2) store_pair(&within[j * half + half - 1], row[half - 1], 0.0f);
        if (j % 2) continue;
        float* to = &between[j / 2 * d];
        for (std::int64_t t = 0; t < d && j + 1 < columns; ++t) store_pair(to + t, row[t], row[t + d]);
        for (std::int64_t t = 0; t < d && j + 1 == columns; ++t) store_pair(to + t, row[t], 0.0f);
      }
    });
  }

  class Pass {
   public:
    Pass(const Paired& products, std::int64_t tile, const Tile& kept)
        : o(products),
          number(tile),
          own(kept),
          slice(allocate_aligned<float>(kSlice * kTile)),
          pairs(allocate_aligned<float>((kSlice + 1) / 2 * kTile)) {
      const std::int64_t n = o.p.height(tile), last = o.d - o.half;
      for (std::int64_t i = 0; i < kTile; ++i) {
        const float* query = i < n ? o.p.query(o.p.row(tile, i)) : nullptr;
        for (std::int64_t t = 0; t < o.half; ++t)
          store_pair(&own.queries[t * kTile + i], query ? query[t] : 0.0f,
                     query && t < last ? query[t + o.half] : 0.0f);
      }
    }
    float* logits(std::int64_t begin, std::int64_t end) const {
      o.product(false, end - begin, kTile, o.half, &o.within[begin * o.half], o.half, own.queries.get(), kTile,
                slice.get(), kTile, false);
      o.p.finish_logits(number, begin, end, slice.get());
      return slice.get();
    }
    void weigh(std::int64_t begin, std::int64_t end, float* logits, const float* top, float* total) const {
      o.p.unit.exponentiate_pairs(logits, end - begin, top, total, &own.shares[begin * kHalf], pairs.get());
      o.product(true, o.p.height(number), o.d, (end - begin + 1) / 2, pairs.get(), kTile, &o.between[begin / 2 * o.d],
                o.d, own.sums.get(), o.d, begin > 0);
    }

   private:
    const Paired& o;
    const std::int64_t number;
    const Tile& own;
    const Aligned<float> slice, pairs;
  };

  void add(std::int64_t tile, const Tile& own, const float* scale, std::int64_t begin, std::int64_t end, bool more,
           float* scaled) const {
    const std::int64_t n = p.height(tile);
    for (std::int64_t i = 0; i < kHalf; ++i) {
      const float* first = i < n ? p.query(p.row(tile, i)) : nullptr;
      const float* second = i + kHalf < n ? p.query(p.row(tile, i + kHalf)) : nullptr;
      for (std::int64_t t = 0; t < d; ++t)
        store_pair(scaled + i * d + t, first ? scale[i] * first[t] : 0.0f,
                   second ? scale[i + kHalf] * second[t] : 0.0f);
    }
    product(false, end - begin, d, kHalf, &own.shares[begin * kHalf], kHalf, scaled, d, p.g.negatives + begin * d, d,
            more);
  }

 private:
  const SoftmaxProblem& p;
  const std::int64_t d, half;
  const Product product;
  Aligned<float> within, between;  // pairs of the negatives: (columns, half), (columns / 2 rounded up, d)
};

// Each thread takes a tile at a time past all columns, with tops that rise on the way. Then, with the sums known,
// slices of columns are shared out, and each takes its gradient from these tiles in their order: there is one sum.
template <class Products>
double kept(const SoftmaxProblem& p, int threads) {
  const std::int64_t d = p.s.dim, columns = p.s.columns, slices = (columns + kSlice - 1) / kSlice;
  const std::int64_t together = std::clamp<std::int64_t>(p.tiles, 1, threads);
  if (p.tiles == 0) std::fill_n(p.g.negatives, columns * d, 0.0f);
  Products products(p);
  products.prepare(threads);
  std::vector<Tile> tiles(static_cast<std::size_t>(together));
  for (Tile& own : tiles) own = products.make(slices);
  std::vector<double> losses(static_cast<std::size_t>(p.tiles));
  std::vector<float> pulls(static_cast<std::size_t>(p.tiles * kTile));
  const auto pass = [&](std::int64_t tile, Tile& own) {
    const std::int64_t n = p.height(tile);
    const typename Products::Pass here(products, tile, own);
    float target[kTile], top[kTile];
    double exact[kTile] = {};
    if (slices == 0) std::fill_n(own.sums.get(), n * d, 0.0f);
    p.target_logits(tile, target);
    std::copy_n(target, kTile, top);
    for (std::int64_t slice = 0; slice < slices; ++slice) {
      const std::int64_t begin = slice * kSlice, end = std::min(columns, begin + kSlice);
      float before[kTile], total[kTile] = {};
      std::copy_n(top, kTile, before);
      float* logits = here.logits(begin, end);
      p.unit.raise_tops(logits, end - begin, top);
      std::copy_n(top, kTile, &own.tops[slice * kTile]);
      for (std::int64_t i = 0; i < n && slice > 0; ++i) {
        if (top[i] == before[i]) continue;
        const float factor = std::exp(before[i] - top[i]);
        exact[i] *= factor;
        for (std::int64_t t = 0; t < d; ++t) own.sums[i * d + t] *= factor;
      }
      here.weigh(begin, end, logits, top, total);
      for (std::int64_t i = 0; i < kTile; ++i) exact[i] += total[i];
    }
    std::copy_n(top, kTile, &own.tops[slices * kTile]);
    float* pull = &pulls[static_cast<std::size_t>(tile * kTile)];
    losses[static_cast<std::size_t>(tile)] = p.finish(tile, target, top, exact, own.scale, pull);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t row = p.row(tile, i);
      const float *query = p.query(row), *positive = p.positive(row);
      for (std::int64_t t = 0; t < d; ++t) {
        p.g.queries[row * d + t] = own.scale[i] * own.sums[i * d + t] + pull[i] * positive[t];
        if (p.g.positives) p.g.positives[row * d + t] = pull[i] * query[t];
      }
    }
  };
  for (std::int64_t first = 0; first < p.tiles; first += together) {
    const std::int64_t here = std::min(together, p.tiles - first);
    parallel_for(here, threads, [&](std::int64_t at, int) { pass(first + at, tiles[static_cast<std::size_t>(at)]); });
    parallel_for(slices, threads, [&](std::int64_t slice, int) {
      const std::int64_t begin = slice * kSlice, end = std::min(columns, begin + kSlice);
      const Aligned<float> scaled = allocate_aligned<float>(d * kTile);
      for (std::int64_t at = 0; at < here; ++at) {
        const Tile& own = tiles[static_cast<std::size_t>(at)];
        const float *top = &own.tops[slices * kTile], *then = &own.tops[slice * kTile];
        float scale[kTile];
        for (std::int64_t i = 0; i < p.height(first + at); ++i)
          scale[i] = then[i] == top[i] ? own.scale[i] : own.scale[i] * std::exp(then[i] - top[i]);
        products.add(first + at, own, scale, begin, end, first + at > 0, scaled.get());
      }
    });
  }
  for (std::int64_t i = 0; i < p.used && !p.g.positives; ++i) {
    const std::int64_t row = p.rows[static_cast<std::size_t>(i)];
    for (std::int64_t t = 0; t < d; ++t)
      p.g.negatives[p.s.targets[row] * d + t] += pulls[static_cast<std::size_t>(i)] * p.query(row)[t];
  }
  double loss = 0.0;
  for (const double part : losses) loss += part;
  return loss;
}

}  // namespace

double softmax_of_kept(const SoftmaxProblem& problem, bool bfloat16, int threads) {
  return bfloat16 ? kept<Paired>(problem, threads) : kept<Single>(problem, threads);
}

}  // namespace rsir
