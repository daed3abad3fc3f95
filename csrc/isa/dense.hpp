// Dense products and vector functions for training, written once over the Isa vectors of the unit that includes them.
// Everything here has internal linkage; see isa/unit.hpp for why.
#pragma once

#include <cstdint>

#include "isa/unit.hpp"

namespace {

typedef Isa::F Vector;
typedef std::int32_t IntVector __attribute__((vector_size(sizeof(Isa::F)), may_alias));
typedef std::uint32_t BitVector __attribute__((vector_size(sizeof(Isa::F)), may_alias));

constexpr int kLanes = Isa::kLanes;
constexpr int kTileRows = 6;                               // times kTileVectors registers accumulate:
constexpr int kTileVectors = sizeof(Vector) == 64 ? 4 : 2;  // 24 of AVX-512's 32, 12 of the 16 elsewhere
constexpr std::int64_t kDepth = 128;  // rows of b passed over at a time: they stay in the first-level cache

// c (Rows, Vectors * kLanes) = or += a b; Part: only the first `rest` lanes of the last vector are there.
template <bool Across, int Rows, int Vectors, bool Part>
inline void product_tile(std::int64_t k, const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                         std::int64_t ldc, bool add, int rest) {
  const auto get = [rest](const float* p, int v) {
    if (Part && v == Vectors - 1) return Isa::load_first(p + v * kLanes, rest);
    return Isa::load_any(p + v * kLanes);
  };
  Vector sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sum[r][v] = add ? get(c + r * ldc, v) : Isa::set1(0.0f);
  for (std::int64_t t = 0; t < k; ++t) {
    Vector right[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) right[v] = get(b, v);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vector left = Isa::set1(Across ? a[r] : a[r * lda]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sum[r][v] = Isa::madd(left, right[v], sum[r][v]);
    }
    a += Across ? lda : 1;
    b += ldb;
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      if (Part && v == Vectors - 1)
        Isa::store_first(c + r * ldc + v * kLanes, sum[r][v], rest);
      else
        Isa::store_any(c + r * ldc + v * kLanes, sum[r][v]);
    }
}

// All m rows of a stripe of columns: tiles of Rows rows, then one of those that are left.
template <bool Across, int Rows, int Vectors, bool Part>
void product_stripe(std::int64_t m, std::int64_t k, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                    float* c, std::int64_t ldc, bool add, int rest) {
  const std::int64_t step = Across ? 1 : lda;
  for (; m >= Rows; m -= Rows, a += Rows * step, c += Rows * ldc)
    product_tile<Across, Rows, Vectors, Part>(k, a, lda, b, ldb, c, ldc, add, rest);
  if constexpr (Rows > 1)
    if (m > 0) product_stripe<Across, Rows - 1, Vectors, Part>(m, k, a, lda, b, ldb, c, ldc, add, rest);
}

// Columns n: stripes of Vectors vectors, then of fewer, the last vector perhaps in part.
template <bool Across, int Vectors>
void product_stripes(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                     std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  for (; n >= Vectors * kLanes; n -= Vectors * kLanes, b += Vectors * kLanes, c += Vectors * kLanes)
    product_stripe<Across, kTileRows, Vectors, false>(m, k, a, lda, b, ldb, c, ldc, add, 0);
  if (n > (Vectors - 1) * kLanes)
    product_stripe<Across, kTileRows, Vectors, true>(m, k, a, lda, b, ldb, c, ldc, add,
                                                     static_cast<int>(n - (Vectors - 1) * kLanes));
  else if constexpr (Vectors > 1)
    if (n > 0) product_stripes<Across, Vectors - 1>(m, n, k, a, lda, b, ldb, c, ldc, add);
}

template <bool Across>
void product_of(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  for (std::int64_t first = 0; first == 0 || first < k; first += kDepth) {  // once when k = 0, for zeros
    const std::int64_t depth = k - first < kDepth ? k - first : kDepth;
    product_stripes<Across, kTileVectors>(m, n, depth, a + first * (Across ? lda : 1), lda, b + first * ldb, ldb, c,
                                          ldc, add || first > 0);
  }
}

void product(bool across, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
             const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  if (across)
    product_of<true>(m, n, k, a, lda, b, ldb, c, ldc, add);
  else
    product_of<false>(m, n, k, a, lda, b, ldb, c, ldc, add);
}

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
