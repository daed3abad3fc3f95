// Vector functions for training, written once over the Isa vectors of the unit that includes them.
// Everything here has internal linkage; see isa/unit.hpp for why.
#pragma once

#include <cstdint>

#include "isa/products.hpp"
#include "isa/unit.hpp"

namespace {

typedef std::int32_t IntVector __attribute__((vector_size(sizeof(Isa::F)), may_alias));
struct Single {
  static Vector madd(Vector a, Vector b, Vector c) { return Isa::madd(a, b, c); }
};

void product(bool across, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
             const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  product_by<Single>(across, m, n, k, a, lda, b, ldb, c, ldc, add);
}

// Pairs of bfloat16, the first one in the low half, without an instruction for them.
struct Pairs {
  static Vector low(Vector x) { return reinterpret_cast<Vector>(reinterpret_cast<BitVector>(x) << 16); }
  static Vector high(Vector x) { return reinterpret_cast<Vector>(reinterpret_cast<BitVector>(x) & 0xffff0000u); }
  static Vector madd(Vector a, Vector b, Vector c) {
    return Isa::madd(low(a), low(b), Isa::madd(high(a), high(b), c));
  }
};

struct Full {};  // instead of a number of lanes: all of them
inline Vector load(const float* p, Full) { return Isa::load_any(p); }
inline Vector load(const float* p, int lanes) { return Isa::load_first(p, lanes); }
inline void store(float* p, Vector x, Full) { Isa::store_any(p, x); }
inline void store(float* p, Vector x, int lanes) { Isa::store_first(p, x, lanes); }

// Calls use(place, lanes) for every vector of n floats; the last one may have fewer lanes.
template <class Use>
inline void each_vector(std::int64_t n, Use use) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) use(i, Full());
  if (i < n) use(i, static_cast<int>(n - i));
}

inline float dot(const float* a, const float* b, std::int64_t n) {
  Vector sum = Isa::set1(0.0f);
  each_vector(n, [&](std::int64_t i, auto lanes) { sum = Isa::madd(load(a + i, lanes), load(b + i, lanes), sum); });
  return Isa::sum(sum);
}

// y += s x
inline void add_scaled(std::int64_t n, float s, const float* x, float* y) {
  const Vector scale = Isa::set1(s);
  each_vector(n, [&](std::int64_t i, auto lanes) {
    store(y + i, Isa::madd(scale, load(x + i, lanes), load(y + i, lanes)), lanes);
  });
}

// e^x for x <= 0 within 2e-7 of the value; 0 below -87, NaN for NaN.
inline Vector exp_of(Vector x) {
  const Vector shift = Isa::set1(12582912.0f);  // adding it rounds to a whole number, which the low bits then hold
  const Vector shifted = Isa::madd(x, Isa::set1(1.44269504f), shift);
  const Vector whole = shifted - shift;
  Vector r = Isa::madd(whole, Isa::set1(-0.693359375f), x);
  r = Isa::madd(whole, Isa::set1(2.12194440e-4f), r);
  Vector y = Isa::set1(1.9875691500e-4f);
  y = Isa::madd(y, r, Isa::set1(1.3981999507e-3f));
  y = Isa::madd(y, r, Isa::set1(8.3334519073e-3f));
  y = Isa::madd(y, r, Isa::set1(4.1665795894e-2f));
  y = Isa::madd(y, r, Isa::set1(1.6666665459e-1f));
  y = Isa::madd(y, r, Isa::set1(5.0000001201e-1f));
  y = Isa::madd(y, r * r, r + Isa::set1(1.0f));
  y = reinterpret_cast<Vector>(reinterpret_cast<BitVector>(y) + (reinterpret_cast<BitVector>(shifted) << 23));
  y = x == x ? y : x;  // the sum above may carry a NaN's low bits into its exponent
  return x < Isa::set1(-87.0f) ? Isa::set1(0.0f) : y;
}

void raise_tops(const float* x, std::int64_t n, float* top) {
  constexpr int kVectors = static_cast<int>(rsir::kSoftmaxTile) / kLanes;
  Vector best[kVectors];
  for (int v = 0; v < kVectors; ++v) best[v] = Isa::load_any(top + v * kLanes);
  for (; n > 0; --n, x += rsir::kSoftmaxTile)
    for (int v = 0; v < kVectors; ++v) {
      const Vector here = Isa::load_any(x + v * kLanes);
      best[v] = here > best[v] ? here : best[v];
    }
  for (int v = 0; v < kVectors; ++v) Isa::store_any(top + v * kLanes, best[v]);
}

void exponentiate(float* x, std::int64_t n, const float* top, float* total) {
  constexpr int kVectors = static_cast<int>(rsir::kSoftmaxTile) / kLanes;
  Vector sum[kVectors], best[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    best[v] = Isa::load_any(top + v * kLanes);
    sum[v] = Isa::load_any(total + v * kLanes);
  }
  for (; n > 0; --n, x += rsir::kSoftmaxTile)
    for (int v = 0; v < kVectors; ++v) {
      const Vector share = exp_of(Isa::load_any(x + v * kLanes) - best[v]);
      Isa::store_any(x + v * kLanes, share);
      sum[v] += share;
    }
  for (int v = 0; v < kVectors; ++v) Isa::store_any(total + v * kLanes, sum[v]);
}

// The bits of x rounded to bfloat16, ties to even, in the upper half; x is at most 1 or NaN.
inline BitVector rounded(Vector x) {
  const BitVector bits = reinterpret_cast<BitVector>(x);
  return bits + 0x7fffu + (bits >> 16 & 1u);
}

void exponentiate_pairs(const float* x, std::int64_t n, const float* top, float* total, float* within, float* between) {
  constexpr int kVectors = static_cast<int>(rsir::kSoftmaxTile) / kLanes;
  Vector sum[kVectors], best[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    best[v] = Isa::load_any(top + v * kLanes);
    sum[v] = Isa::load_any(total + v * kLanes);
  }
  const auto store_pairs = [](float* p, BitVector low, BitVector high) {
    Isa::store_any(p, reinterpret_cast<Vector>(low >> 16 | (high & 0xffff0000u)));
  };
  for (std::int64_t j = 0; j < n; j += 2) {
    BitVector bits[2][kVectors] = {};
    for (int one = 0; one < 2 && j + one < n; ++one) {
      for (int v = 0; v < kVectors; ++v) {
        const Vector share = exp_of(Isa::load_any(x + v * kLanes) - best[v]);
        bits[one][v] = rounded(share);
        sum[v] += share;
      }
      x += rsir::kSoftmaxTile;
      for (int v = 0; v < kVectors / 2; ++v, within += kLanes)
        store_pairs(within, bits[one][v], bits[one][v + kVectors / 2]);
    }
    for (int v = 0; v < kVectors; ++v, between += kLanes) store_pairs(between, bits[0][v], bits[1][v]);
  }
  for (int v = 0; v < kVectors; ++v) Isa::store_any(total + v * kLanes, sum[v]);
}

// One step of Adam over n elements, then of the average: bit for bit what torch.optim.Adam(fused=True) and torch.lerp
// give wherever these have a fused multiply-add.
void adam(const rsir::AdamStep& s, std::int64_t n, const float* gradient, float* weights, float* first, float* second,
          float* average) {
  const Vector take1 = Isa::set1(s.take1), keep2 = Isa::set1(s.keep2), take2 = Isa::set1(s.take2);
  const Vector rate = Isa::set1(-s.rate), root = Isa::set1(s.root), epsilon = Isa::set1(s.epsilon);
  const bool near = s.follows < 0.5f;
  const Vector follows = Isa::set1(near ? s.follows : s.follows - 1.0f);
  each_vector(n, [&](std::int64_t i, auto lanes) {
    const Vector g = gradient ? load(gradient + i, lanes) : Isa::set1(0.0f);
    const Vector before = load(first + i, lanes);
    const Vector mean = Isa::madd(take1, g - before, before);
    const Vector square = Isa::madd(take2 * g, g, load(second + i, lanes) * keep2);
    const Vector w = load(weights + i, lanes) + rate * mean / (Isa::root(square) / root + epsilon);
    store(first + i, mean, lanes);
    store(second + i, square, lanes);
    store(weights + i, w, lanes);
    if (!average) return;
    const Vector a = load(average + i, lanes);
    store(average + i, Isa::madd(follows, w - a, near ? a : w), lanes);
  });
}

}  // namespace
