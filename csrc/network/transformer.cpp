#include "network/transformer.hpp"

#include <algorithm>

#include "network/sums.hpp"

namespace rsir {

namespace {

// Positions that are encoded together, about: their activations stay in the second-level cache.
constexpr std::int64_t kTogether = 128;

// The backward pass only reads it.
LayerSaved saved_of(const LayerShape& s, float* saved, std::int64_t row) {
  float* p = saved + layer_saved(s, row);
  const std::int64_t wide = s.width * s.dim, hidden = s.width * s.feedforward;
  float* active = p + 6 * wide;
  float* rstd = active + 2 * hidden;
  float* filtered = s.reach ? rstd + 2 * s.width : nullptr;
  float* filter_rstd = s.reach ? filtered + wide : nullptr;
  return {p, p + 3 * wide, p + 4 * wide, active, active + hidden, p + 5 * wide, rstd, filtered, filter_rstd};
}

LayerBytes bytes_of(const LayerShape& s, const LayerBytes& all, std::int64_t row) {
  if (!all.attention) return {};
  const std::int64_t wide = row * s.width;
  return {all.attention + wide * s.heads * s.width, all.out + wide * s.dim, all.hidden + wide * s.feedforward,
          all.down + wide * s.dim, all.low ? all.low + wide * s.dim : nullptr};
}

// Writes (n, k) as (k, n); returns the end.
float* transpose(const float* from, std::int64_t n, std::int64_t k, float* to) {
  for (std::int64_t j = 0; j < k; ++j)
    for (std::int64_t i = 0; i < n; ++i) to[j * n + i] = from[i * k + j];
  return to + n * k;
}

double operations(const LayerShape& s, std::int64_t rows) {
  return 4.0 * static_cast<double>(rows * s.width * s.dim) * static_cast<double>(2 * s.dim + s.feedforward);
}

// The weights as right-hand sides; room is what they are kept in.
LayerTransposed turn(const LayerShape& s, const LayerWeights& w, Aligned<float>& room) {
  const std::int64_t d = s.dim, f = s.feedforward;
  room = allocate_aligned<float>(4 * d * d + 2 * d * f);
  LayerTransposed t = {};
  float* p = room.get();
  t.in = p, p = transpose(w.in_weight, 3 * d, d, p);
  t.out = p, p = transpose(w.out_weight, d, d, p);
  t.up = p, p = transpose(w.up_weight, f, d, p);
  t.down = p, transpose(w.down_weight, d, f, p);
  return t;
}

// What the first layer reads of an item at a place.
void embed(std::int64_t d, const float* table, std::int64_t item, const float* positions, std::int64_t place,
           float* out) {
  if (!positions)
    std::copy_n(table + item * d, d, out);
  else
    for (std::int64_t t = 0; t < d; ++t) out[t] = table[item * d + t] + positions[place * d + t];
}

// The gradients as one array, in the order of the struct.
LayerGradients gradients_in(const LayerShape& s, float* p) {
  const std::int64_t d = s.dim, f = s.feedforward;
  LayerGradients g = {};
  const auto next = [&p](std::int64_t size) {
    float* here = p;
    p += size;
    return here;
  };
  g.in_weight = next(3 * d * d), g.in_bias = next(3 * d);
  g.out_weight = next(d * d), g.out_bias = next(d);
  g.norm1_weight = next(d), g.norm1_bias = next(d);
  g.up_weight = next(f * d), g.up_bias = next(f);
  g.down_weight = next(d * f), g.down_bias = next(d);
  g.norm2_weight = next(d), g.norm2_bias = next(d);
  if (!s.reach) return g;
  g.distances = next(s.heads * s.reach), g.beta = next(d);
  g.filter_weight = next(d), g.filter_bias = next(d);
  return g;
}

}  // namespace

void layer_forward(const Unit& unit, const LayerShape& s, const LayerWeights& w, const LayerBatch& batch,
                   int threads, float* saved, float* y) {
  const std::int64_t d = s.dim;
  Aligned<float> room;
  const LayerTransposed t = turn(s, w, room);
  threads = useful_threads(operations(s, batch.rows), threads);
  std::vector<Aligned<float>> scratch(static_cast<std::size_t>(threads));
  parallel_for(batch.rows, threads, [&](std::int64_t row, int worker) {
    Aligned<float>& own = scratch[static_cast<std::size_t>(worker)];
    if (!own) own = allocate_aligned<float>(layer_scratch(s));
    unit.layer_forward(s, w, t, bytes_of(s, batch.bytes, row), batch.segments + row * s.width,
                          batch.x + row * s.width * d, saved_of(s, saved, row), y + row * s.width * d, own.get());
  });
}

void layer_backward(const Unit& unit, const LayerShape& s, const LayerWeights& w,
                    const LayerBatch& batch, int threads, const float* saved, const float* grad_y, float* grad_x,
                    float* gradients) {
  const std::int64_t d = s.dim, size = layer_parameters(s);
  if (batch.rows == 0) {
    std::fill_n(gradients, size, 0.0f);
    return;
  }
  threads = useful_threads(2.0 * operations(s, batch.rows), threads);
  sum_in_groups(batch.rows, threads, size, gradients,
                [&](std::int64_t, std::int64_t first, std::int64_t last, float* sum) {
    const Aligned<float> scratch = allocate_aligned<float>(layer_scratch(s));
    std::fill_n(sum, size, 0.0f);
    const LayerGradients g = gradients_in(s, sum);
    for (std::int64_t row = first; row < last; ++row)
      unit.layer_backward(s, w, bytes_of(s, batch.bytes, row), batch.segments + row * s.width,
                             batch.x + row * s.width * d, saved_of(s, const_cast<float*>(saved), row),
                             grad_y + row * s.width * d, grad_x + row * s.width * d, g, scratch.get());
  });
}

void encode(const Unit& unit, const LayerShape& s, const std::vector<LayerWeights>& layers,
            const Histories& h, int threads, float* out) {
  const std::int64_t d = s.dim;
  std::vector<Aligned<float>> rooms(layers.size());
  std::vector<LayerTransposed> turned;
  for (std::size_t i = 0; i < layers.size(); ++i) turned.push_back(turn(s, layers[i], rooms[i]));
  std::vector<std::int64_t> firsts = {0};  // histories that begin a task
  std::int64_t positions = 0, most = 0;
  for (std::int64_t row = 0, here = 0; row < h.rows; ++row) {
    const std::int64_t length = std::min(h.offsets[row + 1] - h.offsets[row], s.width);
    positions += length;
    most = std::max(most, here += length);
    if (here < kTogether && row + 1 < h.rows) continue;
    firsts.push_back(row + 1);
    here = 0;
  }
  struct Scratch {
    Aligned<float> x, y, rest;
    std::vector<std::int64_t> starts;
  };
  const int useful = useful_threads(operations(s, positions) / s.width * static_cast<double>(layers.size()), threads);
  std::vector<Scratch> scratch(static_cast<std::size_t>(useful));
  parallel_for(static_cast<std::int64_t>(firsts.size()) - 1, useful, [&](std::int64_t task, int worker) {
    Scratch& own = scratch[static_cast<std::size_t>(worker)];
    if (!own.x) {
      own.x = allocate_aligned<float>(most * d);
      own.y = allocate_aligned<float>(most * d);
      own.rest = allocate_aligned<float>(most * encode_scratch(s));
    }
    const std::int64_t first = firsts[task], count = firsts[task + 1] - first;
    own.starts.assign(1, 0);
    float* x = own.x.get();
    for (std::int64_t row = first; row < first + count; ++row) {
      const std::int64_t length = std::min(h.offsets[row + 1] - h.offsets[row], s.width);
      const std::int32_t* items = h.items + h.offsets[row + 1] - length;
      for (std::int64_t i = 0; i < length; ++i, x += d) embed(d, h.table, items[i], h.positions, i, x);
      own.starts.push_back(own.starts.back() + length);
    }
    const float* from = own.x.get();
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const bool last = i + 1 == layers.size();
      float* to = last ? out + first * d : from == own.x.get() ? own.y.get() : own.x.get();
      unit.encode_layer(s, layers[i], turned[i], own.starts.data(), count, from, last, to, own.rest.get());
      from = to;
    }
  });
}

void step(const Unit& unit, const LayerShape& s, const std::vector<LayerWeights>& layers, const Steps& h,
          int threads, float* out) {
  const std::int64_t d = s.dim, tasks = (h.rows + kTogether - 1) / kTogether;
  std::vector<Aligned<float>> rooms(layers.size());
  std::vector<LayerTransposed> turned;
  for (std::size_t i = 0; i < layers.size(); ++i) turned.push_back(turn(s, layers[i], rooms[i]));
  const int useful = useful_threads(operations(s, h.rows) / s.width * static_cast<double>(layers.size()), threads);
  parallel_for(tasks, useful, [&](std::int64_t task, int) {
    const std::int64_t first = task * kTogether, rows = std::min(kTogether, h.rows - first);
    const Aligned<float> x = allocate_aligned<float>(rows * d), y = allocate_aligned<float>(rows * d);
    const Aligned<float> scratch = allocate_aligned<float>(rows * encode_scratch(s));
    for (std::int64_t r = 0; r < rows; ++r)
      embed(d, h.table, h.items[first + r], h.positions, h.at[first + r], x.get() + r * d);
    float *keys[kTogether], *values[kTogether], *lows[kTogether];
    const float* from = x.get();
    for (std::size_t i = 0; i < layers.size(); ++i) {
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t place = (static_cast<std::int64_t>(i) * h.slots + h.slot[first + r]) * s.width * d;
        keys[r] = h.keys + place;
        values[r] = h.values + place;
        lows[r] = h.low ? h.low + (static_cast<std::int64_t>(i) * h.slots + h.slot[first + r]) * d : nullptr;
      }
      float* to = i + 1 == layers.size() ? out + first * d : from == x.get() ? y.get() : x.get();
      unit.step_layer(s, layers[i], turned[i], rows, keys, values, lows, h.at + first, from, to, scratch.get());
      from = to;
    }
  });
}

}  // namespace rsir
