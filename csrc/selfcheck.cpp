// Checks the core without Python, for machines to which it is cross-compiled: every op, on every instruction set of the
// machine, against plain loops. csrc/selfcheck.sh builds and runs it; tests/ops holds the fuller tests.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "catalogue/ops.hpp"
#include "catalogue/philox.hpp"
#include "isa/dispatch.hpp"
#include "network/softmax.hpp"
#include "network/transformer.hpp"

namespace {

using Ids = std::vector<std::int32_t>;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

constexpr float kLowest = -std::numeric_limits<float>::infinity();
std::int64_t checks = 0, failures = 0;

void expect(bool good, const char* unit, const char* what, std::int64_t row) {
  ++checks;
  if (good || ++failures > 20) return;
  std::printf("FAILED %s: %s, row %lld\n", unit, what, static_cast<long long>(row));
}

void expect_close(double got, double want, double tolerance, const char* unit, const char* what, std::int64_t i) {
  expect(std::abs(got - want) <= tolerance * (1.0 + std::abs(want)), unit, what, i);
}

class Random {  // splitmix64
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::int64_t below(std::int64_t n) {
    std::uint64_t x = state_ += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return static_cast<std::int64_t>((x ^ (x >> 31)) % static_cast<std::uint64_t>(n));
  }
  float between() { return static_cast<float>(below(2001) - 1000) * 1e-3f; }  // -1..1
  Floats floats(std::int64_t n) {
    Floats out(static_cast<std::size_t>(n));
    for (float& x : out) x = between();
    return out;
  }

 private:
  std::uint64_t state_;
};

struct Lists {
  Ids ids;
  std::vector<std::int64_t> offsets{0};

  Lists(Random& random, std::int64_t rows, std::int64_t num_items, std::int64_t longest) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = random.below(longest + 1); i > 0; --i)
        ids.push_back(static_cast<std::int32_t>(1 + random.below(num_items)));
      offsets.push_back(static_cast<std::int64_t>(ids.size()));
    }
    ids.reserve(1);  // an address even when empty
  }
  rsir::Ragged get() const { return {ids.data(), offsets.data()}; }
  Ids row(std::int64_t row) const { return Ids(ids.begin() + offsets[row], ids.begin() + offsets[row + 1]); }
};

bool holds(const Ids& ids, std::int32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

// Small whole numbers, so that every order of summation gives the same bits, with NaN and infinities among them.
struct Case {
  std::int64_t rows, num_items, dim;
  Floats queries, items;
  Random random;
  Lists targets, excluded, pool;
  std::vector<std::int64_t> counters;

  Case(std::int64_t rows, std::int64_t num_items, std::int64_t dim, bool finite = false)
      : rows(rows),
        num_items(num_items),
        dim(dim),
        random(static_cast<std::uint64_t>(rows * 1000003 + num_items * 1009 + dim)),
        targets(random, rows, num_items, 4),
        excluded(random, rows, num_items, 30),
        pool(random, rows, num_items, 40) {
    for (std::int64_t i = 0; i < rows * dim; ++i) queries.push_back(static_cast<float>(random.below(5) - 2));
    for (std::int64_t i = 0; i < (num_items + 1) * dim; ++i) items.push_back(static_cast<float>(random.below(5) - 2));
    const float special[] = {std::numeric_limits<float>::quiet_NaN(), -kLowest, kLowest};
    for (std::int64_t item = 7; item <= num_items && !finite; item += 97) items[item * dim] = special[item % 3];
    for (std::int64_t i = 0; i < 3 * rows; ++i) counters.push_back(random.below(std::int64_t{1} << 32));
  }

  float logit(std::int64_t row, std::int64_t item) const {
    float sum = 0.0f;
    for (std::int64_t t = 0; t < dim; ++t) sum += queries[row * dim + t] * items[item * dim + t];
    return std::isnan(sum) ? kLowest : sum;
  }

  // Ids of the k best of the choices, best first.
  Ids best(std::int64_t row, std::int64_t k, const Ids& choices, const Ids& banned) const {
    Ids kept;
    for (const std::int32_t id : choices)
      if (!holds(banned, id) && !holds(kept, id) && logit(row, id) > kLowest) kept.push_back(id);
    std::sort(kept.begin(), kept.end(), [&](std::int32_t a, std::int32_t b) {
      const float first = logit(row, a), second = logit(row, b);
      return first != second ? first > second : a < b;
    });
    if (static_cast<std::int64_t>(kept.size()) > k) kept.resize(static_cast<std::size_t>(k));
    return kept;
  }

  std::int32_t drawn(std::int64_t row, const Ids& best, const rsir::Draw& draw) const {
    std::int32_t chosen = 0;
    double top = 0.0;
    for (const std::int32_t id : best) {
      const double noise = draw.k == 1 ? 0.0
                                       : rsir::gumbel(rsir::PhiloxKey::from_seed(draw.seed),
                                                      static_cast<std::uint32_t>(id), &counters[3 * row]);
      const double value = static_cast<double>(logit(row, id)) / draw.temperature + noise;
      if (chosen != 0 && !(value > top || (value == top && id < chosen && draw.k > 1))) continue;
      chosen = id;
      top = value;
    }
    return chosen;
  }

  // The place of an item in the order of topk without the row's excluded ids, itself always counted in.
  std::int64_t place(std::int64_t row, std::int32_t own, std::int64_t tau) const {
    const float bar = logit(row, own);
    const Ids banned = excluded.row(row);
    std::int64_t before = 0;
    for (std::int32_t item = 1; item <= num_items; ++item) {
      const float other = logit(row, item);
      before += (other > bar || (other == bar && item < own)) && !holds(banned, item);
    }
    return bar > kLowest ? std::min(before, tau) + 1 : tau + 1;
  }

  std::int64_t rank(std::int64_t row, std::int64_t tau) const {
    std::int64_t best = tau + 1;
    for (const std::int32_t target : targets.row(row)) {
      std::int64_t above = 0;
      for (std::int64_t item = 1; item <= num_items; ++item) above += logit(row, item) > logit(row, target);
      best = std::min(best, above + 1);
    }
    return best;
  }
};

void check_scoring(const rsir::Table& table, const Case& c, std::int64_t k, std::int64_t tau, int threads) {
  const rsir::Unit& unit = table.unit;
  const rsir::Queries queries{c.queries.data(), c.rows};
  const rsir::Draw draw{k, 1.5, 0x8000000000003039u, c.counters.data()};
  tau = std::min(tau, c.num_items);
  std::vector<std::int64_t> ids(c.rows * k), ranks(c.rows), drawn(c.rows), pooled(c.rows);
  std::vector<std::int64_t> both(c.rows), both_ranks(c.rows), places(c.rows);
  Ids owns;
  for (std::int64_t row = 0; row < c.rows; ++row) owns.push_back(static_cast<std::int32_t>(1 + row * 7 % c.num_items));
  Floats logits(c.rows * k), drawn_logits(c.rows);
  rsir::topk(table, queries, k, c.excluded.get(), threads, ids.data(), logits.data());
  rsir::rank_within(table, queries, c.targets.get(), tau, threads, ranks.data());
  rsir::place_within(table, queries, owns.data(), c.excluded.get(), tau, threads, places.data());
  std::vector<std::int64_t> above(c.rows);
  Floats bars;
  for (std::int64_t row = 0; row < c.rows; ++row) bars.push_back(c.logit(row, owns[row]));
  rsir::count_above(table, queries, bars.data(), tau, threads, above.data());
  rsir::topk_sample(table, queries, draw, c.excluded.get(), threads, drawn.data(), drawn_logits.data());
  rsir::pool_sample(table, queries, c.pool.get(), draw, c.excluded.get(), threads, pooled.data(), drawn_logits.data());
  rsir::rank_and_sample(table, queries, c.targets.get(), tau, draw, c.excluded.get(), threads, both_ranks.data(),
                        both.data(), drawn_logits.data());
  Ids everything;
  for (std::int32_t id = 1; id <= c.num_items; ++id) everything.push_back(id);
  for (std::int64_t row = 0; row < c.rows; ++row) {
    const Ids best = c.best(row, k, everything, c.excluded.row(row));
    bool same = true;
    for (std::int64_t i = 0; i < k; ++i) {
      const bool there = i < static_cast<std::int64_t>(best.size());
      same = same && ids[row * k + i] == (there ? best[i] : 0);
      same = same && logits[row * k + i] == (there ? c.logit(row, best[i]) : kLowest);
    }
    expect(same, unit.name, "topk", row);
    const std::int64_t rank = c.rank(row, tau);
    const std::int32_t chosen = c.drawn(row, best, draw);
    expect(ranks[row] == rank, unit.name, "rank_within", row);
    std::int64_t count = 0;
    for (const std::int32_t id : everything) count += c.logit(row, id) > bars[row];
    expect(above[row] == std::min(count, tau), unit.name, "count_above", row);
    expect(places[row] == c.place(row, owns[row], tau), unit.name, "place_within", row);
    expect(drawn[row] == chosen, unit.name, "topk_sample", row);
    expect(pooled[row] == c.drawn(row, c.best(row, k, c.pool.row(row), c.excluded.row(row)), draw), unit.name,
           "pool_sample", row);
    expect(both_ranks[row] == rank, unit.name, "rank_and_sample, rank", row);
    expect(both[row] == (rank <= tau ? chosen : 0), unit.name, "rank_and_sample, item", row);
    const float logit = both[row] ? c.logit(row, chosen) : kLowest;
    expect(drawn_logits[row] == logit, unit.name, "rank_and_sample, logit", row);
  }
}

// Codes of eight bits say no more of a logit than is true: items and queries of numbers of many sizes.
void check_codes(std::int64_t dim) {
  constexpr std::int64_t kItems = 300, kQueries = 40;
  Random random(static_cast<std::uint64_t>(dim));
  Floats items = random.floats(kItems * dim), queries = random.floats(kQueries * dim);
  const auto scale = [](float& x, std::int64_t by) { x = std::ldexp(x, static_cast<int>(by)); };
  for (std::int64_t i = 0; i < kItems * dim; i += 5) scale(items[i], random.below(12));
  for (std::int64_t i = 0; i < kQueries * dim; ++i) scale(queries[i], i / dim * 3 - 60);
  const rsir::Codes codes(kItems, dim, [&](std::int64_t item, std::int64_t t) { return items[item * dim + t]; });
  expect(codes.usable, "codes", "usable", dim);
  std::vector<std::int8_t> coded(codes.quads * 4);
  for (std::int64_t row = 0; row < kQueries; ++row) {
    rsir::CodedQuery query;
    const float* q = queries.data() + row * dim;
    if (!codes.code(q, coded.data(), query)) {
      expect(std::all_of(q, q + dim, [](float x) { return x == 0.0f; }), "codes", "a query without codes", row);
      continue;
    }
    std::vector<std::int64_t> scores;
    Floats logits;
    double longest = 0.0;
    for (std::int64_t item = 0; item < kItems; ++item) {
      const std::int64_t width = rsir::kScreenWidth;
      const std::uint8_t* from = codes.data() + (item / width * codes.quads * width + item % width) * 4;
      std::int64_t score = 0;
      float logit = 0.0f;
      double size = 0.0;
      for (std::int64_t t = 0; t < dim; ++t) {
        score += coded[t] * from[t / 4 * width * 4 + t % 4];
        logit = std::fma(q[t], items[item * dim + t], logit);
        size += std::abs(static_cast<double>(q[t]) * items[item * dim + t]);
      }
      const double said = query.step * (static_cast<double>(score) - query.offset);
      expect(std::abs(said - logit) <= query.error, "codes", "error", row);
      scores.push_back(score);
      logits.push_back(logit);
      longest = std::max(longest, size);
    }
    expect(dim < 16 || query.error < longest, "codes", "an error that says something", row);
    for (std::int64_t a = 0; a < kItems; ++a)
      for (std::int64_t b = 0; b < kItems; b += 7) {
        if (scores[a] <= query.below(logits[b])) expect(logits[a] < logits[b], "codes", "below", row);
        if (scores[a] > query.above(logits[b])) expect(logits[a] > logits[b], "codes", "above", row);
        if (logits[a] >= logits[b]) expect(scores[a] >= scores[b] - query.slack(), "codes", "slack", row);
      }
  }
}

void check_votes(int threads) {
  constexpr std::int64_t kRows = 300, kItems = 50, kDegree = 7;
  Random random(5);
  Ids graph, items;
  for (std::int64_t i = 0; i < (kItems + 1) * kDegree; ++i)
    graph.push_back(static_cast<std::int32_t>(random.below(kItems + 1)));
  for (std::int64_t i = 0; i < kRows; ++i) items.push_back(static_cast<std::int32_t>(1 + random.below(kItems)));
  const Lists sources(random, kRows, kItems, 60);
  std::vector<std::int64_t> votes(kRows);
  rsir::neighbour_votes(graph.data(), kDegree, items.data(), kRows, sources.get(), threads, votes.data());
  for (std::int64_t row = 0; row < kRows; ++row) {
    std::int64_t want = 0;
    for (std::int32_t source = 1; source <= kItems; ++source) {
      const auto first = graph.begin() + source * kDegree;
      want += holds(sources.row(row), source) && holds(Ids(first, first + kDegree), items[row]);
    }
    expect(votes[row] == want, "votes", "neighbour_votes", row);
  }
}

// Targets are rows of the negatives; the last position has weight 0.
void check_softmax(const rsir::Unit& unit, std::int64_t columns, int threads) {
  constexpr std::int64_t kPositions = 70, kDim = 19;
  Random random(columns);
  const Floats queries = random.floats(kPositions * kDim), negatives = random.floats(columns * kDim);
  Floats weights(kPositions, 0.5f), grad_queries(kPositions * kDim), grad_negatives(columns * kDim);
  weights.back() = 0.0f;
  std::vector<std::int64_t> targets;
  for (std::int64_t i = 0; i < kPositions; ++i) targets.push_back(random.below(columns));
  rsir::Softmax problem{};
  problem.positions = kPositions, problem.dim = kDim, problem.columns = columns;
  problem.queries = queries.data(), problem.negatives = negatives.data();
  problem.targets = targets.data(), problem.weights = weights.data();
  const double loss = rsir::softmax(unit, problem, false, threads, {grad_queries.data(), nullptr, grad_negatives.data()});
  double want = 0.0;
  Doubles want_queries(kPositions * kDim), want_negatives(columns * kDim);
  for (std::int64_t i = 0; i < kPositions; ++i) {
    Doubles logits(columns);
    double total = 0.0;
    for (std::int64_t j = 0; j < columns; ++j) {
      for (std::int64_t t = 0; t < kDim; ++t)
        logits[j] += static_cast<double>(queries[i * kDim + t]) * negatives[j * kDim + t];
      total += std::exp(logits[j]);
    }
    want += weights[i] * (std::log(total) - logits[targets[i]]);
    for (std::int64_t j = 0; j < columns; ++j) {
      const double slope = weights[i] * (std::exp(logits[j]) / total - (j == targets[i]));
      for (std::int64_t t = 0; t < kDim; ++t) {
        want_queries[i * kDim + t] += slope * negatives[j * kDim + t];
        want_negatives[j * kDim + t] += slope * queries[i * kDim + t];
      }
    }
  }
  expect_close(loss, want, 1e-5, unit.name, "softmax, loss", 0);
  for (std::int64_t i = 0; i < kPositions * kDim; ++i)
    expect_close(grad_queries[i], want_queries[i], 1e-5, unit.name, "softmax, gradient of queries", i);
  for (std::int64_t i = 0; i < columns * kDim; ++i)
    expect_close(grad_negatives[i], want_negatives[i], 1e-5, unit.name, "softmax, gradient of items", i);
}

constexpr double kShare = 0.75, kDecay = 0.625;  // of the filter

// A layer without dropout, in double precision; parameters stand one after the other as in LayerGradients.
Doubles plain_layer(const rsir::LayerShape& s, const Doubles& w, const std::int64_t* segments, const Doubles& x) {
  const std::int64_t d = s.dim, f = s.feedforward, part = d / s.heads;
  const double* next = w.data();
  const double* distances = s.reach ? next + rsir::layer_parameters(s) - s.heads * s.reach - 3 * d : nullptr;
  const auto affine = [&](const Doubles& a, std::int64_t k, std::int64_t n) {
    const double *weight = next, *bias = next + n * k;
    next = bias + n;
    Doubles out(s.width * n);
    for (std::int64_t i = 0; i < s.width; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        out[i * n + j] = bias[j];
        for (std::int64_t t = 0; t < k; ++t) out[i * n + j] += a[i * k + t] * weight[j * k + t];
      }
    return out;
  };
  const auto normalise = [&](Doubles sum, const Doubles& z) {
    const double *weight = next, *bias = next + d;
    next = bias + d;
    for (std::int64_t i = 0; i < s.width; ++i) {
      double mean = 0.0, square = 0.0;
      for (std::int64_t t = 0; t < d; ++t) mean += (sum[i * d + t] += z[i * d + t]) / static_cast<double>(d);
      for (std::int64_t t = 0; t < d; ++t) square += std::pow(sum[i * d + t] - mean, 2) / static_cast<double>(d);
      for (std::int64_t t = 0; t < d; ++t)
        sum[i * d + t] = (sum[i * d + t] - mean) / std::sqrt(square + s.epsilon) * weight[t] + bias[t];
    }
    return sum;
  };
  const Doubles qkv = affine(x, d, 3 * d);
  Doubles attended(s.width * d);
  for (std::int64_t i = 0; i < s.width; ++i)
    for (std::int64_t head = 0; head < s.heads && segments[i] != 0; ++head) {
      Doubles share(i + 1);
      double total = 0.0;
      for (std::int64_t j = 0; j <= i; ++j) {
        if (segments[j] != segments[i]) continue;
        double product = 0.0;
        const double bias = distances ? distances[head * s.reach + i - j] : 0.0;
        for (std::int64_t t = head * part; t < (head + 1) * part; ++t)
          product += qkv[i * 3 * d + t] * qkv[j * 3 * d + d + t];
        total += share[j] = std::exp(product / std::sqrt(static_cast<double>(part)) + bias);
      }
      for (std::int64_t j = 0; j <= i; ++j)
        for (std::int64_t t = head * part; t < (head + 1) * part; ++t)
          attended[i * d + t] += share[j] / total * qkv[j * 3 * d + 2 * d + t];
    }
  const Doubles projected = affine(attended, d, d);
  Doubles middle = normalise(x, projected);
  if (distances) {
    const double *beta = distances + s.heads * s.reach, *after = next;
    Doubles low(s.width * d), filtered(s.width * d);
    for (std::int64_t i = 0; i < s.width; ++i)
      for (std::int64_t t = 0; t < d; ++t) {
        const bool goes_on = i > 0 && segments[i] == segments[i - 1];
        double& here = low[i * d + t];
        here = (goes_on ? kDecay * low[(i - 1) * d + t] : 0.0) + (1.0 - kDecay) * x[i * d + t];
        filtered[i * d + t] = here + beta[t] * beta[t] * (x[i * d + t] - here);
      }
    next = beta + d;
    filtered = normalise(x, filtered);
    next = after;
    for (std::int64_t i = 0; i < s.width * d; ++i) middle[i] = kShare * filtered[i] + (1.0 - kShare) * middle[i];
  }
  Doubles hidden = affine(middle, d, f);
  for (double& value : hidden) value *= 0.5 * std::erfc(-value / std::sqrt(2.0));
  const Doubles down = affine(hidden, f, d);
  return normalise(middle, down);
}

void check_layer(const rsir::Unit& unit, bool filtered, int threads) {
  const rsir::LayerShape shape{10, 13, 2, 9, 1e-5f, 0, 1.0f, filtered ? 11 : 0};
  constexpr std::int64_t kRows = 3;
  const std::int64_t d = shape.dim, f = shape.feedforward, wide = shape.width * d;
  const std::int64_t segments[kRows * 9] = {1, 1, 1, 2, 2, 3, 3, 3, 3, 0, 0, 1, 1, 1,
                                            1, 1, 2, 0, 5, 5, 5, 5, 5, 5, 5, 5, 5};
  Random random(9);
  const Floats weights = random.floats(rsir::layer_parameters(shape)), x = random.floats(kRows * wide);
  const Floats grad_y = random.floats(kRows * wide);
  const float* next = weights.data();
  const auto take = [&next](std::int64_t size) { return (next += size) - size; };
  rsir::LayerWeights w{};
  w.in_weight = take(3 * d * d), w.in_bias = take(3 * d), w.out_weight = take(d * d), w.out_bias = take(d);
  w.norm1_weight = take(d), w.norm1_bias = take(d), w.up_weight = take(f * d), w.up_bias = take(f);
  w.down_weight = take(d * f), w.down_bias = take(d), w.norm2_weight = take(d), w.norm2_bias = take(d);
  if (filtered) {
    w.distances = take(shape.heads * shape.reach), w.beta = take(d);
    w.filter_weight = take(d), w.filter_bias = take(d);
    w.share = static_cast<float>(kShare), w.decay = static_cast<float>(kDecay);
  }
  Floats saved(rsir::layer_saved(shape, kRows)), y(kRows * wide), grad_x(kRows * wide), gradients(weights.size());
  const rsir::LayerBatch batch{kRows, segments, x.data(), {}};
  rsir::layer_forward(unit, shape, w, batch, threads, saved.data(), y.data());
  rsir::layer_backward(unit, shape, w, batch, threads, saved.data(), grad_y.data(), grad_x.data(), gradients.data());
  Doubles parameters(weights.begin(), weights.end()), inputs(x.begin(), x.end());
  const auto outputs = [&] {
    Doubles all;
    for (std::int64_t row = 0; row < kRows; ++row) {
      const Doubles own(inputs.begin() + row * wide, inputs.begin() + (row + 1) * wide);
      const Doubles out = plain_layer(shape, parameters, segments + row * shape.width, own);
      all.insert(all.end(), out.begin(), out.end());
    }
    return all;
  };
  const Doubles want = outputs();
  for (std::int64_t i = 0; i < kRows * wide; ++i)
    expect_close(y[i], want[i], 1e-4, unit.name, "layer, forward", i);
  const auto slope = [&](double& value) {  // by central differences
    const double before = value;
    double difference = 0.0;
    for (const double step : {1e-5, -1e-5}) {
      value = before + step;
      const Doubles out = outputs();
      for (std::size_t i = 0; i < out.size(); ++i) difference += grad_y[i] * out[i] / (2 * step);
    }
    value = before;
    return difference;
  };
  for (std::int64_t i = 0; i < kRows * wide; i += 7)
    expect_close(grad_x[i], slope(inputs[i]), 1e-3, unit.name, "layer, gradient of x", i);
  for (std::size_t i = 0; i < weights.size(); i += 5)
    expect_close(gradients[i], slope(parameters[i]), 1e-3, unit.name, "layer, gradient of weights",
                 static_cast<std::int64_t>(i));
}

}  // namespace

int main() {
  const rsir::PhiloxKey key{0xA4093822u, 0x299F31D0u};  // known answer of Random123
  expect(rsir::philox_word(key, 0x243F6A88u, 0x85A308D3u, 0x13198A2Eu, 0x03707344u) == 0xD16CFE09u, "any", "philox", 0);
  const std::int64_t shapes[][3] = {{1, 1, 1},   {7, 5, 3},      {1, 900, 64},  {13, 300, 100},
                                    {60, 33, 8}, {150, 400, 65}, {3, 40, 1024}};
  for (const rsir::Unit* unit : rsir::available_units()) {
    const std::int64_t before = checks;
    for (const auto& shape : shapes) {
      for (const bool finite : {false, true}) {
        const Case c(shape[0], shape[1], shape[2], finite);
        rsir::Table single(c.items.data(), c.num_items, c.dim, *unit);
        rsir::Table half(c.items.data(), c.num_items, c.dim, *unit, rsir::Table::Half{});  // rounds none of them
        for (rsir::Table* table : {&single, &half}) {
          table->screen_always();
          for (const int threads : {1, 3}) {
            check_scoring(*table, c, 1, 1, threads);
            check_scoring(*table, c, 20, 10, threads);
            check_scoring(*table, c, 100, c.num_items, threads);
          }
          const bool coded = unit->screen && (finite || c.num_items < 7);
          expect((table->screened > 0) == coded || c.num_items == 1, unit->name, "screened", c.num_items);
        }
      }
    }
    for (const int threads : {1, 3}) {
      check_softmax(*unit, 30, threads);
      check_softmax(*unit, 4500, threads);
      check_softmax(*unit, 33000, threads);
      check_layer(*unit, false, threads);
      check_layer(*unit, true, threads);
    }
    std::printf("%s: %lld checks\n", unit->name, static_cast<long long>(checks - before));
  }
  for (const int threads : {1, 3}) check_votes(threads);
  for (const std::int64_t dim : {1, 3, 64, 101}) check_codes(dim);
  std::printf("%lld of %lld failed\n", static_cast<long long>(failures), static_cast<long long>(checks));
  return failures ? 1 : 0;
}
