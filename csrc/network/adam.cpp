#include "network/adam.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/parallel.hpp"

namespace rsir {

namespace {

constexpr std::int64_t kRowsOfTask = 256;
constexpr double kNegligible = 1e-9;   // a term of a sum, against its first one

// What steps j in last + 1..step without a gradient do to a row. Step j subtracts, with i = j - last,
//
//   rate * beta1^i first / (1 - beta1^j) / (sqrt(beta2^i second / (1 - beta2^j)) + epsilon)
//     = rate * first * w_j / (sqrt(second) + epsilon * e_j)
//   w_j = (beta1 / sqrt(beta2))^i * sqrt(1 - beta2^j) / (1 - beta1^j),  e_j = sqrt((1 - beta2^j) / beta2^i)
//
// The sum over j takes the mean of e_j, weighted by w_j, in place of each: which matters only where the root of the
// mean square is about as small as epsilon.
//
// An average a that keeps k_j of itself at step j ends, with P the product of all k_j and the weights before this, at
//
//   P a + (1 - P) weights - lag * first / (sqrt(second) + epsilon)
//
// where lag follows the sum as a follows the weights.
struct Gap {
  float move, epsilon;   // weights -= move * first / (sqrt(second) + epsilon)
  float decay1, decay2;  // of first and second
  float kept, lag;       // of the average
};

// What the average keeps of itself in one step.
double kept_at(const AdamSettings& s, std::int64_t step) {
  const double when = static_cast<double>(step);
  return step == 1 ? 0.0 : std::min(s.decay, when / (9.0 + when));
}

// The product of that over the steps after `from`, which is at least 1, up to `to`.
double kept_over(const AdamSettings& s, std::int64_t from, std::int64_t to) {
  double kept = 1.0;
  const double even = std::ceil(9.0 * s.decay / (1.0 - s.decay));  // from this step on it is the decay
  const double a = static_cast<double>(from), b = std::min(static_cast<double>(to), even);
  if (a < b)
    for (int i = 1; i <= 9; ++i) kept *= (a + i) / (b + i);
  return kept * std::pow(s.decay, std::max(0.0, static_cast<double>(to) - std::max(a, even)));
}

// What w_j and w_j e_j have beside powers of i, for the steps that the rows of one call make up for.
struct Corrections {
  std::int64_t from;  // the first step
  std::vector<double> weight, scaled;

  Corrections(const AdamSettings& s, std::int64_t begin, std::int64_t end) : from(begin) {
    double power1 = std::pow(s.beta1, static_cast<double>(begin - 1));
    double power2 = std::pow(s.beta2, static_cast<double>(begin - 1));
    for (std::int64_t j = begin; j <= end; ++j) {
      power1 *= s.beta1, power2 *= s.beta2;
      if (power1 < 1e-17 && power2 < 1e-17) break;  // both are 1 from here on
      const double root = std::sqrt(1.0 - power2);
      weight.push_back(root / (1.0 - power1));
      scaled.push_back((1.0 - power2) / (1.0 - power1));
    }
  }
};

Gap gap_of(const AdamSettings& s, const Corrections& c, std::int64_t last, std::int64_t step) {
  const double ratio = s.beta1 / std::sqrt(s.beta2), ratio_scaled = s.beta1 / s.beta2;
  double share = 1.0, share_scaled = 1.0, total = 0.0, scaled = 0.0, lag = 0.0;
  std::int64_t j = last + 1;
  for (; j <= step && share > kNegligible; ++j) {
    const std::size_t at = static_cast<std::size_t>(j - c.from);
    const bool settled = at >= c.weight.size();
    share *= ratio, share_scaled *= ratio_scaled;
    total += share * (settled ? 1.0 : c.weight[at]);
    scaled += share_scaled * (settled ? 1.0 : c.scaled[at]);
    lag = total + kept_at(s, j) * (lag - total);
  }
  lag = total + kept_over(s, j - 1, step) * (lag - total);
  const double gone = static_cast<double>(step - last);
  const double decay1 = std::pow(s.beta1, gone);
  // What is left of a mean that decayed so far would only be slow to compute with.
  const double epsilon = total > 0.0 ? s.epsilon * scaled / total : s.epsilon;
  return {static_cast<float>(s.rate * total), static_cast<float>(epsilon),
          decay1 < 1e-20 ? 0.0f : static_cast<float>(decay1), static_cast<float>(std::pow(s.beta2, gone)),
          static_cast<float>(kept_over(s, last, step)), static_cast<float>(s.rate * lag)};
}

void catch_up(const Gap& gap, const AdamTable& t, std::int64_t row) {
  const std::int64_t at = row * t.dim;
  float *weights = t.weights + at, *first = t.first + at, *second = t.second + at;
  if (t.average) {
    float* average = t.average + at;
    for (std::int64_t i = 0; i < t.dim; ++i)
      average[i] = weights[i] + gap.kept * (average[i] - weights[i]) -
                   gap.lag * first[i] / (std::sqrt(second[i]) + gap.epsilon);
  }
  for (std::int64_t i = 0; i < t.dim; ++i) {
    weights[i] -= gap.move * first[i] / (std::sqrt(second[i]) + gap.epsilon);
    first[i] *= gap.decay1;
    second[i] *= gap.decay2;
  }
}

// A row's number and its last step before this call.
struct Behind {
  std::int64_t row;
  std::int32_t last;
};

void bring(const AdamSettings& settings, const AdamTable& t, const std::vector<Behind>& behind, std::int64_t step,
           int threads) {
  const std::int64_t count = static_cast<std::int64_t>(behind.size()), tasks = (count + kRowsOfTask - 1) / kRowsOfTask;
  if (behind.empty()) return;
  const Corrections corrections(settings, behind.front().last + 1, step);
  threads = useful_threads(static_cast<double>(count) * (16.0 * static_cast<double>(t.dim) + 1000.0), threads);
  parallel_for(tasks, threads, [&](std::int64_t task, int) {
    Gap gap = {};
    std::int32_t of = -1;
    const std::int64_t end = std::min(count, (task + 1) * kRowsOfTask);
    for (std::int64_t k = task * kRowsOfTask; k < end; ++k) {
      const Behind& b = behind[static_cast<std::size_t>(k)];
      if (b.last != of) gap = gap_of(settings, corrections, of = b.last, step);
      catch_up(gap, t, b.row);
    }
  });
}

}  // namespace

void adam_catch_up(const AdamSettings& settings, const AdamTable& t, const std::int64_t* ids, std::int64_t n,
                   std::int64_t step, int threads) {
  std::vector<Behind> behind;
  for (std::int64_t k = 0; k < (ids ? n : t.rows); ++k) {
    const std::int64_t row = ids ? ids[k] : k;
    std::int32_t& last = t.last[row];
    if (last <= 0 || last >= step) continue;
    behind.push_back({row, last});
    last = static_cast<std::int32_t>(step);
  }
  // Rows of one gap side by side: it is then computed once.
  std::sort(behind.begin(), behind.end(), [](const Behind& a, const Behind& b) {
    return a.last != b.last ? a.last < b.last : a.row < b.row;
  });
  bring(settings, t, behind, step, threads);
}

void adam_step(const AdamSettings& settings, const AdamTable& t, const std::int64_t* ids, std::int64_t n,
               const float* gradients, std::int64_t step, int threads) {
  adam_catch_up(settings, t, ids, n, step - 1, threads);
  struct Place {
    std::int64_t row, at;
  };
  std::vector<Place> places;
  places.reserve(static_cast<std::size_t>(n));
  for (std::int64_t k = 0; k < n; ++k)
    if (ids[k] != t.padding) places.push_back({ids[k], k});
  std::sort(places.begin(), places.end(),
            [](const Place& a, const Place& b) { return a.row != b.row ? a.row < b.row : a.at < b.at; });
  std::vector<std::size_t> starts;
  for (std::size_t k = 0; k < places.size(); ++k)
    if (k == 0 || places[k].row != places[k - 1].row) starts.push_back(k);
  const std::int64_t rows = static_cast<std::int64_t>(starts.size());
  starts.push_back(places.size());

  const double when = static_cast<double>(step);
  const float rate = static_cast<float>(settings.rate / (1.0 - std::pow(settings.beta1, when)));
  const float root = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(settings.beta2, when)));
  const float epsilon = static_cast<float>(settings.epsilon);
  const float keep1 = static_cast<float>(settings.beta1), take1 = static_cast<float>(1.0 - settings.beta1);
  const float keep2 = static_cast<float>(settings.beta2), take2 = static_cast<float>(1.0 - settings.beta2);
  const float kept = static_cast<float>(kept_at(settings, step));
  threads = useful_threads(24.0 * static_cast<double>(n * t.dim), threads);
  parallel_for((rows + kRowsOfTask - 1) / kRowsOfTask, threads, [&](std::int64_t task, int) {
    std::vector<float> sum(static_cast<std::size_t>(t.dim));
    const std::int64_t end = std::min(rows, (task + 1) * kRowsOfTask);
    for (std::int64_t k = task * kRowsOfTask; k < end; ++k) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      float* g = sum.data();
      const std::size_t begin = starts[static_cast<std::size_t>(k)];
      for (std::size_t p = begin; p < starts[static_cast<std::size_t>(k) + 1]; ++p) {
        const float* part = gradients + places[p].at * t.dim;
        for (std::int64_t i = 0; i < t.dim; ++i) g[i] += part[i];
      }
      const std::int64_t row = places[begin].row;
      float *w = t.weights + row * t.dim, *first = t.first + row * t.dim, *second = t.second + row * t.dim;
      for (std::int64_t i = 0; i < t.dim; ++i) {
        first[i] = keep1 * first[i] + take1 * g[i];
        second[i] = keep2 * second[i] + take2 * g[i] * g[i];
        w[i] -= rate * first[i] / (std::sqrt(second[i]) * root + epsilon);
      }
      if (t.average) {
        float* average = t.average + row * t.dim;
        for (std::int64_t i = 0; i < t.dim; ++i) average[i] = w[i] + kept * (average[i] - w[i]);
      }
      t.last[row] = static_cast<std::int32_t>(step);
    }
  });
}

void adam_whole(const Unit& unit, const AdamSettings& settings, const AdamTable& t,
                const std::int64_t* ids, std::int64_t n, const float* gradients, std::int64_t step, int threads) {
  const double when = static_cast<double>(step);
  AdamStep s = {};
  s.rate = static_cast<float>(settings.rate / (1.0 - std::pow(settings.beta1, when)));
  s.epsilon = static_cast<float>(settings.epsilon);
  s.root = static_cast<float>(std::sqrt(1.0 - std::pow(settings.beta2, when)));
  s.take1 = static_cast<float>(1.0 - settings.beta1);
  s.keep2 = static_cast<float>(settings.beta2);
  s.take2 = static_cast<float>(1.0 - settings.beta2);
  s.follows = static_cast<float>(1.0 - kept_at(settings, step));
  // The gradients of each row as a list, in their order: its first one, and the one after each.
  std::vector<std::int64_t> head(static_cast<std::size_t>(ids ? t.rows : 0), -1), after(static_cast<std::size_t>(n));
  for (std::int64_t k = n - 1; ids && k >= 0; --k) {
    if (ids[k] == t.padding) continue;
    after[static_cast<std::size_t>(k)] = head[static_cast<std::size_t>(ids[k])];
    head[static_cast<std::size_t>(ids[k])] = k;
  }
  const std::int64_t d = t.dim;
  threads = useful_threads(16.0 * static_cast<double>(t.rows * d), threads);
  parallel_for((t.rows + kRowsOfTask - 1) / kRowsOfTask, threads, [&](std::int64_t task, int) {
    const std::int64_t first = task * kRowsOfTask, last = std::min(t.rows, first + kRowsOfTask);
    const auto take = [&](std::int64_t row, std::int64_t rows, const float* gradient) {
      const std::int64_t at = row * d;
      unit.adam(s, rows * d, gradient, t.weights + at, t.first + at, t.second + at,
                   t.average ? t.average + at : nullptr);
    };
    if (!ids) {
      for (std::int64_t row = first; row < last; ++row) take(row, 1, row == t.padding ? nullptr : gradients + row * d);
      return;
    }
    std::vector<float> sum(static_cast<std::size_t>(d));
    for (std::int64_t row = first; row < last; ++row) {
      std::int64_t k = head[static_cast<std::size_t>(row)];
      if (k < 0) {
        std::int64_t rest = row + 1;  // rows without gradients together
        while (rest < last && head[static_cast<std::size_t>(rest)] < 0) ++rest;
        take(row, rest - row, nullptr);
        row = rest - 1;
        continue;
      }
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (; k >= 0; k = after[static_cast<std::size_t>(k)])
        for (std::int64_t i = 0; i < d; ++i) sum[static_cast<std::size_t>(i)] += gradients[k * d + i];
      take(row, 1, sum.data());
    }
  });
}

}  // namespace rsir
