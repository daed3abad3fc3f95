// A post-norm Transformer layer, forward and backward, over one row of a packed batch at a time, whose activations
// then never leave the cache. Attention runs over each segment alone: no padding, no mask. Written once over the Isa
// vectors of the unit that includes it; rsir/ops/reference.py says in torch what is computed.
#pragma once

#include <cstdint>

#include "isa/filter.hpp"

namespace {

// The normal distribution at x: share below, and density. The share is within 1e-7 (Abramowitz and Stegun 7.1.26).
struct Normal {
  Vector below, density;

  explicit Normal(Vector x) {
    const Vector zero = Isa::set1(0.0f), one = Isa::set1(1.0f);
    const Vector size = x < zero ? zero - x : x;
    const Vector bell = exp_of(x * x * Isa::set1(-0.5f));
    const Vector t = one / Isa::madd(size, Isa::set1(0.3275911f * 0.70710678f), one);
    Vector tail = Isa::set1(0.5f * 1.061405429f);
    tail = Isa::madd(tail, t, Isa::set1(0.5f * -1.453152027f));
    tail = Isa::madd(tail, t, Isa::set1(0.5f * 1.421413741f));
    tail = Isa::madd(tail, t, Isa::set1(0.5f * -0.284496736f));
    tail = Isa::madd(tail, t, Isa::set1(0.5f * 0.254829592f));
    tail = tail * t * bell;
    below = x < zero ? tail : one - tail;
    density = bell * Isa::set1(0.39894228f);
  }
};

// out (rows, n) = a (rows, k) b (k, n) + bias; rows of b are ldb apart.
void affine(std::int64_t rows, std::int64_t n, std::int64_t k, const float* a, const float* b, std::int64_t ldb,
            const float* bias, float* out) {
  for (std::int64_t r = 0; r < rows; ++r)
    each_vector(n, [&](std::int64_t i, auto lanes) { store(out + r * n + i, load(bias + i, lanes), lanes); });
  product(false, rows, n, k, a, k, b, ldb, out, n, true);
}

// The gradients of affine's b transposed (n, k) and of its bias; then that of a, added or not.
void affine_backward(std::int64_t rows, std::int64_t n, std::int64_t k, const float* a, const float* weight,
                     const float* grad_out, float* grad_weight, float* grad_bias, float* grad_a, bool add) {
  product(true, n, k, rows, grad_out, n, a, k, grad_weight, k, true);
  for (std::int64_t r = 0; r < rows; ++r) add_scaled(n, 1.0f, grad_out + r * n, grad_bias);
  product(false, rows, k, n, grad_out, n, weight, k, grad_a, k, add);
}

// Calls use(first, end) for every segment of a row; positions of segment 0 belong to none.
template <class Use>
void each_segment(const std::int64_t* segments, std::int64_t width, Use use) {
  for (std::int64_t first = 0; first < width;) {
    std::int64_t end = first + 1;
    while (end < width && segments[end] == segments[first]) ++end;
    if (segments[first] != 0) use(first, end);
    first = end;
  }
}

// The bias of one head for distances, or null.
inline const float* bias_of(const LayerShape& s, const LayerWeights& w, std::int64_t head) {
  return w.distances ? w.distances + head * s.reach : nullptr;
}

// The shares of a query of one head in n keys, stride apart, before they are divided by their total, which is returned.
// bias: for distances, from that of the last key, 0; or null.
inline float attend(std::int64_t part, std::int64_t stride, float scale, const float* query, const float* keys,
                    const float* bias, std::int64_t n, float* out) {
  float top = -__builtin_inff();
  for (std::int64_t j = 0; j < n; ++j) {
    out[j] = scale * dot(query, keys + j * stride, part);
    if (bias) out[j] += bias[n - 1 - j];
    if (out[j] > top) top = out[j];
  }
  each_vector(n, [&](std::int64_t j, auto lanes) {
    store(out + j, exp_of(load(out + j, lanes) - Isa::set1(top)), lanes);
  });
  float total = 0.0f;
  for (std::int64_t j = 0; j < n; ++j) total += out[j];
  return total;
}

struct Attention {
  const LayerShape& s;
  const LayerWeights& w;
  const Dropout dropout;
  std::int64_t part, stride;  // width of a head; of a row of queries, keys and values
  float scale;

  Attention(const LayerShape& shape, const LayerWeights& weights)
      : s(shape),
        w(weights),
        dropout(shape),
        part(shape.dim / shape.heads),
        stride(3 * shape.dim),
        scale(1.0f / __builtin_sqrtf(static_cast<float>(part))) {}

  const unsigned char* bytes_of(const LayerBytes& bytes, std::int64_t head, std::int64_t i, std::int64_t first) const {
    return bytes.attention ? bytes.attention + (head * s.width + i) * s.width + first : nullptr;
  }

  void shares(std::int64_t head, const float* query, const float* keys, std::int64_t n, float* out) const {
    const float total = attend(part, stride, scale, query, keys, bias_of(s, w, head), n, out);
    const Vector factor = Isa::set1(1.0f / total);
    each_vector(n, [&](std::int64_t j, auto lanes) { store(out + j, load(out + j, lanes) * factor, lanes); });
  }

  void forward(const std::int64_t* segments, const LayerBytes& bytes, const float* qkv, float* attended,
               float* share) const {
    for (std::int64_t i = 0; i < s.width * s.dim; ++i) attended[i] = 0.0f;
    each_segment(segments, s.width, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t head = 0; head < s.heads; ++head) {
        const float* queries = qkv + head * part;
        const float* keys = queries + s.dim + first * stride;
        for (std::int64_t i = first; i < end; ++i) {
          const std::int64_t n = i - first + 1;
          shares(head, queries + i * stride, keys, n, share);
          const unsigned char* random = bytes_of(bytes, head, i, first);
          each_vector(n, [&](std::int64_t j, auto lanes) {
            store(share + j, load(share + j, lanes) * dropout.factors(random, j, lanes), lanes);
          });
          float* out = attended + i * s.dim + head * part;
          for (std::int64_t j = 0; j < n; ++j) add_scaled(part, share[j], keys + s.dim + j * stride, out);
        }
      }
    });
  }

  // grad_qkv is set, grad_distances (null without a filter) added to; share, factor and grad hold width floats each.
  void backward(const std::int64_t* segments, const LayerBytes& bytes, const float* qkv, const float* grad_attended,
                float* grad_qkv, float* grad_distances, float* share, float* factor, float* grad) const {
    for (std::int64_t i = 0; i < s.width * stride; ++i) grad_qkv[i] = 0.0f;
    each_segment(segments, s.width, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t head = 0; head < s.heads; ++head) {
        const std::int64_t to_keys = s.dim + first * stride;
        const float* queries = qkv + head * part;
        const float* keys = queries + to_keys;
        float* grad_queries = grad_qkv + head * part;
        float* grad_keys = grad_queries + to_keys;
        for (std::int64_t i = first; i < end; ++i) {
          const std::int64_t n = i - first + 1;
          const float* upstream = grad_attended + i * s.dim + head * part;
          shares(head, queries + i * stride, keys, n, share);
          const unsigned char* random = bytes_of(bytes, head, i, first);
          each_vector(n, [&](std::int64_t j, auto lanes) {
            store(factor + j, dropout.factors(random, j, lanes), lanes);
          });
          float along = 0.0f;
          for (std::int64_t j = 0; j < n; ++j) {
            grad[j] = factor[j] * dot(upstream, keys + s.dim + j * stride, part);
            add_scaled(part, factor[j] * share[j], upstream, grad_keys + s.dim + j * stride);
            along += share[j] * grad[j];
          }
          for (std::int64_t j = 0; j < n; ++j) {
            const float slope = scale * share[j] * (grad[j] - along);
            add_scaled(part, slope, keys + j * stride, grad_queries + i * stride);
            add_scaled(part, slope, queries + i * stride, grad_keys + j * stride);
          }
          if (!grad_distances) continue;
          float* grad_bias = grad_distances + head * s.reach;
          for (std::int64_t j = 0; j < n; ++j) grad_bias[n - 1 - j] += share[j] * (grad[j] - along);
        }
      }
    });
  }
};

void layer_forward(const LayerShape& s, const LayerWeights& w, const LayerTransposed& t, const LayerBytes& bytes,
                   const std::int64_t* segments, const float* x, const LayerSaved& saved, float* y, float* scratch) {
  const std::int64_t d = s.dim, f = s.feedforward;
  const Dropout dropout(s);
  float* z = scratch;
  float* middle = z + s.width * d;
  float* hidden = middle + s.width * d;
  float* share = hidden + s.width * f;
  affine(s.width, 3 * d, d, x, t.in, 3 * d, w.in_bias, saved.qkv);
  Attention(s, w).forward(segments, bytes, saved.qkv, saved.attended, share);
  affine(s.width, d, d, saved.attended, t.out, d, w.out_bias, z);
  for (std::int64_t i = 0; i < s.width; ++i)
    saved.rstd[2 * i] = normalise(d, s.epsilon, dropout, at(bytes.out, i * d), x + i * d, z + i * d, w.norm1_weight,
                                  w.norm1_bias, saved.normed1 + i * d, middle + i * d);
  if (w.distances) filter_forward(s, w, bytes, segments, x, saved, middle, z, share);
  affine(s.width, f, d, middle, t.up, f, w.up_bias, hidden);
  each_vector(s.width * f, [&](std::int64_t i, auto lanes) {
    const Vector here = load(hidden + i, lanes), factor = dropout.factors(bytes.hidden, i, lanes);
    const Normal normal(here);
    store(saved.active + i, here * normal.below * factor, lanes);
    store(saved.slopes + i, Isa::madd(here, normal.density, normal.below) * factor, lanes);
  });
  affine(s.width, d, f, saved.active, t.down, d, w.down_bias, z);
  for (std::int64_t i = 0; i < s.width; ++i)
    saved.rstd[2 * i + 1] = normalise(d, s.epsilon, dropout, at(bytes.down, i * d), middle + i * d, z + i * d,
                                      w.norm2_weight, w.norm2_bias, saved.normed2 + i * d, y + i * d);
}

void layer_backward(const LayerShape& s, const LayerWeights& w, const LayerBytes& bytes, const std::int64_t* segments,
                    const float* x, const LayerSaved& saved, const float* grad_y, float* grad_x,
                    const LayerGradients& g, float* scratch) {
  const std::int64_t d = s.dim, f = s.feedforward;
  const Dropout dropout(s);
  float* middle = scratch;  // what the first norm gave
  float* grad_middle = middle + s.width * d;
  float* grad_z = grad_middle + s.width * d;
  float* grad_attended = grad_z + s.width * d;
  float* grad_qkv = grad_attended + s.width * d;
  float* grad_active = grad_qkv + 3 * s.width * d;
  float* share = grad_active + s.width * f;
  float* filtered = grad_attended;  // with a filter: what its norm gave, then the gradient of that
  for (std::int64_t i = 0; i < s.width; ++i) {
    normalise_backward(d, dropout, at(bytes.down, i * d), saved.normed2 + i * d, saved.rstd[2 * i + 1], w.norm2_weight,
                       grad_y + i * d, g.norm2_weight, g.norm2_bias, grad_middle + i * d, grad_z + i * d);
    each_vector(d, [&](std::int64_t j, auto lanes) {
      const Vector normed = load(saved.normed1 + i * d + j, lanes);
      const Vector weight = load(w.norm1_weight + j, lanes), bias = load(w.norm1_bias + j, lanes);
      store(middle + i * d + j, Isa::madd(normed, weight, bias), lanes);
    });
    if (!w.distances) continue;
    each_vector(d, [&](std::int64_t j, auto lanes) {
      const Vector normed = load(saved.filtered + i * d + j, lanes);
      const Vector weight = load(w.filter_weight + j, lanes), bias = load(w.filter_bias + j, lanes);
      store(filtered + i * d + j, Isa::madd(normed, weight, bias), lanes);
    });
  }
  if (w.distances) mix(s.width * d, w.share, filtered, middle);
  affine_backward(s.width, d, f, saved.active, w.down_weight, grad_z, g.down_weight, g.down_bias, grad_active, false);
  each_vector(s.width * f, [&](std::int64_t i, auto lanes) {
    store(grad_active + i, load(grad_active + i, lanes) * load(saved.slopes + i, lanes), lanes);
  });
  affine_backward(s.width, f, d, middle, w.up_weight, grad_active, g.up_weight, g.up_bias, grad_middle, true);
  if (w.distances)
    each_vector(s.width * d, [&](std::int64_t i, auto lanes) {
      const Vector grad = load(grad_middle + i, lanes);
      store(filtered + i, grad * Isa::set1(w.share), lanes);
      store(grad_middle + i, grad * Isa::set1(1.0f - w.share), lanes);
    });
  for (std::int64_t i = 0; i < s.width; ++i)
    normalise_backward(d, dropout, at(bytes.out, i * d), saved.normed1 + i * d, saved.rstd[2 * i], w.norm1_weight,
                       grad_middle + i * d, g.norm1_weight, g.norm1_bias, grad_x + i * d, grad_z + i * d);
  if (w.distances) filter_backward(s, w, bytes, segments, x, saved, filtered, grad_x, g, grad_qkv, middle, middle + d);
  affine_backward(s.width, d, d, saved.attended, w.out_weight, grad_z, g.out_weight, g.out_bias, grad_attended, false);
  Attention(s, w).backward(segments, bytes, saved.qkv, grad_attended, grad_qkv, g.distances, share, share + s.width,
                           share + 2 * s.width);
  affine_backward(s.width, 3 * d, d, x, w.in_weight, grad_qkv, g.in_weight, g.in_bias, grad_x, true);
}

}  // namespace
