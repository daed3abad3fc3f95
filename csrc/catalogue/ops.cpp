#include "catalogue/ops.hpp"

#include <algorithm>

#include "catalogue/philox.hpp"
#include "catalogue/scan_request.hpp"
#include "support/parallel.hpp"

namespace rsir {

namespace {

// The draw among the best candidates, in any order.
Candidate draw_one(const std::vector<Candidate>& best, const Draw& draw, std::int64_t row) {
  Candidate chosen;
  if (best.empty()) return chosen;
  if (draw.k == 1) return best[0];
  const PhiloxKey key = PhiloxKey::from_seed(draw.seed);
  double top = 0.0;
  for (const Candidate& one : best) {
    const double value = static_cast<double>(one.logit) / draw.temperature +
                         gumbel(key, static_cast<std::uint32_t>(one.id), draw.counters + 3 * row);
    if (chosen.id == 0 || value > top || (value == top && one.id < chosen.id)) {
      chosen = one;
      top = value;
    }
  }
  return chosen;
}

std::int64_t rank_of(std::int64_t count, std::int64_t tau) {
  return count < 0 ? tau + 1 : std::min(count, tau) + 1;
}

// The candidates, at most k, best first.
void write_best(std::vector<Candidate>& best, std::int64_t k, std::int64_t* ids, float* logits) {
  std::sort(best.begin(), best.end(), better);
  best.resize(static_cast<std::size_t>(k));
  for (std::int64_t i = 0; i < k; ++i) {
    ids[i] = best[i].id;
    logits[i] = best[i].logit;
  }
}

}  // namespace

void rank_within(const Table& table, Queries queries, Ragged targets, std::int64_t tau, int threads,
                 std::int64_t* ranks, Added added) {
  CatalogueScan(table, queries, 0, {}, targets, tau, threads, added)
      .run([&](std::int64_t row, std::int64_t count, const std::vector<Candidate>&) {
        ranks[row] = rank_of(count, tau);
      });
}

void count_above(const Table& table, Queries queries, const float* bars, std::int64_t limit, int threads,
                 std::int64_t* counts, Added added) {
  CatalogueScan scan(table, queries, 0, {}, {}, limit, threads, added);
  scan.count_above(bars);
  scan.run([&](std::int64_t row, std::int64_t count, const std::vector<Candidate>&) {
    counts[row] = std::min(count, limit);
  });
}

void place_within(const Table& table, Queries queries, const std::int32_t* targets, Ragged excluded, std::int64_t tau,
                  int threads, std::int64_t* places, Added added) {
  CatalogueScan scan(table, queries, 0, excluded, {}, tau, threads, added);
  scan.compete(targets);
  scan.run([&](std::int64_t row, std::int64_t count, const std::vector<Candidate>&) {
    places[row] = rank_of(count, tau);
  });
}

void topk(const Table& table, Queries queries, std::int64_t k, Ragged excluded, int threads, std::int64_t* ids,
          float* logits, Added added) {
  CatalogueScan(table, queries, k, excluded, {}, table.num_items, threads, added)
      .run([&](std::int64_t row, std::int64_t, std::vector<Candidate>& best) {
        write_best(best, k, ids + row * k, logits + row * k);
      });
}

void rank_and_topk(const Table& table, Queries queries, Ragged targets, std::int64_t tau, std::int64_t k,
                   Ragged excluded, int threads, std::int64_t* ranks, std::int64_t* ids, float* logits, Added added) {
  CatalogueScan(table, queries, k, excluded, targets, tau, threads, added)
      .run([&](std::int64_t row, std::int64_t count, std::vector<Candidate>& best) {
        ranks[row] = rank_of(count, tau);
        if (ranks[row] > tau) best.clear();
        write_best(best, k, ids + row * k, logits + row * k);
      });
}

void topk_sample(const Table& table, Queries queries, const Draw& draw, Ragged excluded, int threads,
                 std::int64_t* ids, float* logits, Added added) {
  CatalogueScan(table, queries, draw.k, excluded, {}, table.num_items, threads, added)
      .run([&](std::int64_t row, std::int64_t, const std::vector<Candidate>& best) {
        const Candidate chosen = draw_one(best, draw, row);
        ids[row] = chosen.id;
        logits[row] = chosen.logit;
      });
}

void rank_and_sample(const Table& table, Queries queries, Ragged targets, std::int64_t tau, const Draw& draw,
                     Ragged excluded, int threads, std::int64_t* ranks, std::int64_t* ids, float* logits,
                     Added added) {
  CatalogueScan(table, queries, draw.k, excluded, targets, tau, threads, added)
      .run([&](std::int64_t row, std::int64_t count, const std::vector<Candidate>& best) {
        ranks[row] = rank_of(count, tau);
        const Candidate chosen = ranks[row] <= tau ? draw_one(best, draw, row) : Candidate{};
        ids[row] = chosen.id;
        logits[row] = chosen.logit;
      });
}

void pool_sample(const Table& table, Queries queries, Ragged pool, const Draw& draw, Ragged excluded, int threads,
                 std::int64_t* ids, float* logits, Added added) {
  constexpr std::int64_t kRowsPerTask = 64;
  threads = useful_threads(2.0 * static_cast<double>(pool.offsets[queries.rows]) * static_cast<double>(table.dim),
                           threads);
  parallel_for((queries.rows + kRowsPerTask - 1) / kRowsPerTask, threads, [&](std::int64_t task, int) {
    std::vector<std::int32_t> choices, banned, eligible;
    std::vector<float> scores;
    std::vector<Candidate> best;
    const std::int64_t end = std::min((task + 1) * kRowsPerTask, queries.rows);
    for (std::int64_t row = task * kRowsPerTask; row < end; ++row) {
      choices.assign(pool.ids + pool.offsets[row], pool.ids + pool.offsets[row + 1]);
      std::sort(choices.begin(), choices.end());
      choices.erase(std::unique(choices.begin(), choices.end()), choices.end());
      if (excluded.offsets) {
        banned.assign(excluded.ids + excluded.offsets[row], excluded.ids + excluded.offsets[row + 1]);
        std::sort(banned.begin(), banned.end());
        eligible.resize(choices.size());
        eligible.erase(std::set_difference(choices.begin(), choices.end(), banned.begin(), banned.end(),
                                           eligible.begin()),
                       eligible.end());
        choices.swap(eligible);
      }
      scores.resize(choices.size());
      table.dots(queries.data + row * table.dim, choices.data(), static_cast<std::int64_t>(choices.size()),
                 scores.data());
      if (added.offsets) {
        std::int64_t at = added.offsets[row];
        for (std::size_t i = 0; i < choices.size(); ++i) {
          while (at < added.offsets[row + 1] && added.ids[at] < choices[i]) ++at;
          if (at < added.offsets[row + 1] && added.ids[at] == choices[i])
            scores[i] = score_of(scores[i], added.values[at]);
        }
      }
      best.clear();
      for (std::size_t i = 0; i < choices.size(); ++i)
        if (scores[i] > kLowest) best.push_back({choices[i], scores[i]});  // false for NaN
      keep_best(best, draw.k);
      const Candidate chosen = draw_one(best, draw, row);
      ids[row] = chosen.id;
      logits[row] = chosen.logit;
    }
  });
}

void logits_of(const Table& table, Queries queries, Ragged lists, int threads, float* logits) {
  constexpr std::int64_t kRowsPerTask = 64;
  threads = useful_threads(2.0 * static_cast<double>(lists.offsets[queries.rows]) * static_cast<double>(table.dim),
                           threads);
  parallel_for((queries.rows + kRowsPerTask - 1) / kRowsPerTask, threads, [&](std::int64_t task, int) {
    const std::int64_t end = std::min((task + 1) * kRowsPerTask, queries.rows);
    for (std::int64_t row = task * kRowsPerTask; row < end; ++row) {
      const std::int64_t from = lists.offsets[row], n = lists.offsets[row + 1] - from;
      table.dots(queries.data + row * table.dim, lists.ids + from, n, logits + from);
      for (std::int64_t i = from; i < from + n; ++i)
        if (!(logits[i] > kLowest)) logits[i] = kLowest;  // NaN
    }
  });
}

void neighbour_votes(const std::int32_t* graph, std::int64_t degree, const std::int32_t* items, std::int64_t rows,
                     Ragged sources, int threads, std::int64_t* votes) {
  constexpr std::int64_t kRowsPerTask = 64;
  threads = useful_threads(static_cast<double>(sources.offsets[rows]) * static_cast<double>(degree), threads);
  parallel_for((rows + kRowsPerTask - 1) / kRowsPerTask, threads, [&](std::int64_t task, int) {
    std::vector<std::int32_t> distinct;
    const std::int64_t end = std::min((task + 1) * kRowsPerTask, rows);
    for (std::int64_t row = task * kRowsPerTask; row < end; ++row) {
      distinct.assign(sources.ids + sources.offsets[row], sources.ids + sources.offsets[row + 1]);
      std::sort(distinct.begin(), distinct.end());
      distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
      votes[row] = 0;
      if (items[row] == 0) continue;
      for (const std::int32_t source : distinct) {
        const std::int32_t* neighbours = graph + source * degree;
        int hit = 0;
        for (std::int64_t i = 0; i < degree; ++i) hit |= neighbours[i] == items[row];
        votes[row] += hit;
      }
    }
  });
}

}  // namespace rsir
