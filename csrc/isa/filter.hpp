// The causal low-pass filter beside attention, forward and backward, over one row of a packed batch; in encoding and
// decoding, a position at a time. rsir/ops/reference.py says in torch what is computed.
#pragma once

#include <cstdint>

#include "isa/norm.hpp"

namespace {

// The filter's average of a sequence, one position further.
inline void advance(std::int64_t d, float decay, const float* x, float* low) {
  const Vector keep = Isa::set1(decay), take = Isa::set1(1.0f - decay);
  each_vector(d, [&](std::int64_t i, auto lanes) {
    store(low + i, Isa::madd(keep, load(low + i, lanes), take * load(x + i, lanes)), lanes);
  });
}

// out = low + beta^2 (x - low); one position.
inline void emphasise(std::int64_t d, const float* beta, const float* x, const float* low, float* out) {
  each_vector(d, [&](std::int64_t i, auto lanes) {
    const Vector root = load(beta + i, lanes), here = load(low + i, lanes);
    store(out + i, Isa::madd(root * root, load(x + i, lanes) - here, here), lanes);
  });
}

// y = share a + (1 - share) y
inline void mix(std::int64_t n, float share, const float* a, float* y) {
  const Vector one = Isa::set1(share), other = Isa::set1(1.0f - share);
  each_vector(n, [&](std::int64_t i, auto lanes) {
    store(y + i, Isa::madd(one, load(a + i, lanes), other * load(y + i, lanes)), lanes);
  });
}

// middle becomes the mix of itself and the filtered input of the layer; z holds (width, d), low d.
inline void filter_forward(const LayerShape& s, const LayerWeights& w, const LayerBytes& bytes,
                           const std::int64_t* segments, const float* x, const LayerSaved& saved, float* middle,
                           float* z, float* low) {
  const std::int64_t d = s.dim;
  const Dropout dropout(s);
  for (std::int64_t i = 0; i < s.width; ++i) {
    if (i == 0 || segments[i] != segments[i - 1])
      for (std::int64_t t = 0; t < d; ++t) low[t] = 0.0f;
    advance(d, w.decay, x + i * d, low);
    emphasise(d, w.beta, x + i * d, low, z + i * d);
    saved.filter_rstd[i] = normalise(d, s.epsilon, dropout, at(bytes.low, i * d), x + i * d, z + i * d,
                                     w.filter_weight, w.filter_bias, saved.filtered + i * d, z + i * d);
  }
  mix(s.width * d, w.share, z, middle);
}

// From the gradient of the filter's norm, which is overwritten, to that of x, which is added to; lows holds (width, d),
// grad_z and carry d.
inline void filter_backward(const LayerShape& s, const LayerWeights& w, const LayerBytes& bytes,
                            const std::int64_t* segments, const float* x, const LayerSaved& saved, float* grad,
                            float* grad_x, const LayerGradients& g, float* lows, float* grad_z, float* carry) {
  const std::int64_t d = s.dim;
  const Dropout dropout(s);
  for (std::int64_t i = 0; i < s.width; ++i) {
    const bool first = i == 0 || segments[i] != segments[i - 1];
    for (std::int64_t t = 0; t < d; ++t) lows[i * d + t] = first ? 0.0f : lows[(i - 1) * d + t];
    advance(d, w.decay, x + i * d, lows + i * d);
  }
  const Vector keep = Isa::set1(w.decay), take = Isa::set1(1.0f - w.decay), two = Isa::set1(2.0f);
  for (std::int64_t i = s.width - 1; i >= 0; --i) {
    if (i == s.width - 1 || segments[i] != segments[i + 1])
      for (std::int64_t t = 0; t < d; ++t) carry[t] = 0.0f;
    float* own = grad + i * d;
    normalise_backward(d, dropout, at(bytes.low, i * d), saved.filtered + i * d, saved.filter_rstd[i], w.filter_weight,
                       own, g.filter_weight, g.filter_bias, own, grad_z);
    each_vector(d, [&](std::int64_t t, auto lanes) {
      const Vector here = load(grad_z + t, lanes), root = load(w.beta + t, lanes);
      const Vector high = here * root * root;
      const Vector along = two * root * (load(x + i * d + t, lanes) - load(lows + i * d + t, lanes));
      store(g.beta + t, Isa::madd(along, here, load(g.beta + t, lanes)), lanes);
      const Vector grad_low = Isa::madd(keep, load(carry + t, lanes), here - high);
      store(carry + t, grad_low, lanes);
      const Vector direct = load(grad_x + i * d + t, lanes) + load(own + t, lanes) + high;
      store(grad_x + i * d + t, Isa::madd(take, grad_low, direct), lanes);
    });
  }
}

}  // namespace
