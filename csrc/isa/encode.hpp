// A Transformer layer without dropout over sequences laid one after the other, for what keeps nothing for a backward
// pass: evaluation and recommendation. A position's result does not depend on what else is there.
#pragma once

#include <cstdint>

#include "isa/layer.hpp"

namespace {

// What a query of one head gathers from n positions; keys and values are stride apart. share holds n floats.
inline void gather(std::int64_t part, std::int64_t stride, float scale, const float* query, const float* keys,
                   const float* values, const float* bias, std::int64_t n, float* share, float* out) {
  const Vector factor = Isa::set1(1.0f / attend(part, stride, scale, query, keys, bias, n, share));
  each_vector(part, [&](std::int64_t i, auto lanes) {
    Vector sum = Isa::set1(0.0f);
    for (std::int64_t j = 0; j < n; ++j)
      sum = Isa::madd(Isa::set1(share[j]), load(values + j * stride + i, lanes), sum);
    store(out + i, sum * factor, lanes);
  });
}

// From a layer's input, what attention gathered and, with a filter, what it averaged the layer's output, all (rows, d);
// z holds (rows, d) and hidden (rows, f).
void finish_rows(const LayerShape& s, const LayerWeights& w, const LayerTransposed& t, std::int64_t rows,
                 const float* in, const float* attended, const float* low, float* z, float* hidden, float* y) {
  const std::int64_t d = s.dim, f = s.feedforward;
  const Dropout none(s);
  affine(rows, d, d, attended, t.out, d, w.out_bias, z);
  for (std::int64_t i = 0; i < rows; ++i)
    normalise(d, s.epsilon, none, nullptr, in + i * d, z + i * d, w.norm1_weight, w.norm1_bias, y + i * d, y + i * d);
  if (low) {
    for (std::int64_t i = 0; i < rows; ++i) {
      float* own = z + i * d;
      emphasise(d, w.beta, in + i * d, low + i * d, own);
      normalise(d, s.epsilon, none, nullptr, in + i * d, own, w.filter_weight, w.filter_bias, own, own);
    }
    mix(rows * d, w.share, z, y);
  }
  affine(rows, f, d, y, t.up, f, w.up_bias, hidden);
  each_vector(rows * f, [&](std::int64_t i, auto lanes) {
    const Vector here = load(hidden + i, lanes);
    store(hidden + i, here * Normal(here).below, lanes);
  });
  affine(rows, d, f, hidden, t.down, d, w.down_bias, z);
  for (std::int64_t i = 0; i < rows; ++i)
    normalise(d, s.epsilon, none, nullptr, y + i * d, z + i * d, w.norm2_weight, w.norm2_bias, y + i * d, y + i * d);
}

void encode_layer(const LayerShape& s, const LayerWeights& w, const LayerTransposed& t, const std::int64_t* starts,
                  std::int64_t sequences, const float* x, bool last_only, float* y, float* scratch) {
  const std::int64_t d = s.dim, f = s.feedforward, all = starts[sequences], part = d / s.heads;
  const std::int64_t rows = last_only ? sequences : all;
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(part));
  float* pairs = scratch;               // (all, 2 d) keys and values
  float* attended = pairs + 2 * all * d;  // (rows, d)
  float* z = attended + rows * d;       // (rows, d) queries, then what the linear maps give
  float* hidden = z + rows * d;         // (rows, f)
  float* share = hidden + rows * f;     // (all,)
  float* own = share + all;             // (rows, d) the layer's input at the rows
  float* low = w.distances ? own + rows * d : nullptr;  // (rows, d) the filter's averages there
  if (last_only)
    for (std::int64_t r = 0; r < sequences; ++r) {
      const float* from = x + (starts[r + 1] - 1) * d;
      each_vector(d, [&](std::int64_t i, auto lanes) { store(own + r * d + i, load(from + i, lanes), lanes); });
    }
  const float* in = last_only ? own : x;
  affine(all, 2 * d, d, x, t.in + d, 3 * d, w.in_bias + d, pairs);
  affine(rows, d, d, in, t.in, 3 * d, w.in_bias, z);
  for (std::int64_t r = 0; r < sequences; ++r) {
    const float* keys = pairs + starts[r] * 2 * d;
    for (std::int64_t i = last_only ? starts[r + 1] - 1 : starts[r]; i < starts[r + 1]; ++i) {
      const std::int64_t row = last_only ? r : i;
      for (std::int64_t head = 0; head < s.heads; ++head)
        gather(part, 2 * d, scale, z + row * d + head * part, keys + head * part, keys + d + head * part,
               bias_of(s, w, head), i - starts[r] + 1, share, attended + row * d + head * part);
    }
    for (std::int64_t i = starts[r]; low && i < starts[r + 1]; ++i) {
      float* here = low + (last_only ? r : i) * d;
      if (i == starts[r] || !last_only)
        for (std::int64_t k = 0; k < d; ++k) here[k] = i == starts[r] ? 0.0f : here[k - d];
      advance(d, w.decay, x + i * d, here);
    }
  }
  finish_rows(s, w, t, rows, in, attended, low, z, hidden, y);
}

void step_layer(const LayerShape& s, const LayerWeights& w, const LayerTransposed& t, std::int64_t rows,
                float* const* keys, float* const* values, float* const* lows, const std::int64_t* at, const float* x,
                float* y, float* scratch) {
  const std::int64_t d = s.dim, part = d / s.heads;
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(part));
  float* qkv = scratch;                 // (rows, 3 d)
  float* attended = qkv + 3 * rows * d;  // (rows, d)
  float* hidden = attended + rows * d;  // (rows, f)
  float* share = hidden + rows * s.feedforward;
  float* low = w.distances ? share + s.width : nullptr;  // (rows, d)
  affine(rows, 3 * d, d, x, t.in, 3 * d, w.in_bias, qkv);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t head = 0; head < s.heads; ++head) {
      const float* query = qkv + r * 3 * d + head * part;
      float* own_keys = keys[r] + head * s.width * part;
      float* own_values = values[r] + head * s.width * part;
      each_vector(part, [&](std::int64_t i, auto lanes) {
        store(own_keys + at[r] * part + i, load(query + d + i, lanes), lanes);
        store(own_values + at[r] * part + i, load(query + 2 * d + i, lanes), lanes);
      });
      gather(part, part, scale, query, own_keys, own_values, bias_of(s, w, head), at[r] + 1, share,
             attended + r * d + head * part);
    }
  for (std::int64_t r = 0; low && r < rows; ++r) {
    for (std::int64_t k = 0; at[r] == 0 && k < d; ++k) lows[r][k] = 0.0f;
    advance(d, w.decay, x + r * d, lows[r]);
    each_vector(d, [&](std::int64_t i, auto lanes) { store(low + r * d + i, load(lows[r] + i, lanes), lanes); });
  }
  finish_rows(s, w, t, rows, x, attended, low, qkv, hidden, y);
}

}  // namespace
