// Dense products, written once over the Isa vectors of the unit that includes them and over what multiplies: single
// precision, or pairs of bfloat16, whose bits then stand where a float would. Everything here has internal linkage; see
// isa/unit.hpp for why.
#pragma once

#include <cstdint>

namespace {

typedef Isa::F Vector;
typedef std::uint32_t BitVector __attribute__((vector_size(sizeof(Isa::F)), may_alias));

constexpr int kLanes = Isa::kLanes;
constexpr int kTileRows = 6;                               // times kTileVectors registers accumulate:
constexpr int kTileVectors = sizeof(Vector) == 64 ? 4 : 2;  // 24 of AVX-512's 32, 12 of the 16 elsewhere
constexpr std::int64_t kDepth = 128;  // rows of b passed over at a time: they stay in the first-level cache

// c (Rows, Vectors * kLanes) = or += a b; Part: only the first `rest` lanes of the last vector are there.
template <class Multiply, bool Across, int Rows, int Vectors, bool Part>
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
      for (int v = 0; v < Vectors; ++v) sum[r][v] = Multiply::madd(left, right[v], sum[r][v]);
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
template <class Multiply, bool Across, int Rows, int Vectors, bool Part>
void product_stripe(std::int64_t m, std::int64_t k, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                    float* c, std::int64_t ldc, bool add, int rest) {
  const std::int64_t step = Across ? 1 : lda;
  for (; m >= Rows; m -= Rows, a += Rows * step, c += Rows * ldc)
    product_tile<Multiply, Across, Rows, Vectors, Part>(k, a, lda, b, ldb, c, ldc, add, rest);
  if constexpr (Rows > 1)
    if (m > 0) product_stripe<Multiply, Across, Rows - 1, Vectors, Part>(m, k, a, lda, b, ldb, c, ldc, add, rest);
}

// Columns n: stripes of Vectors vectors, then of fewer, the last vector perhaps in part.
template <class Multiply, bool Across, int Vectors>
void product_stripes(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                     std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  for (; n >= Vectors * kLanes; n -= Vectors * kLanes, b += Vectors * kLanes, c += Vectors * kLanes)
    product_stripe<Multiply, Across, kTileRows, Vectors, false>(m, k, a, lda, b, ldb, c, ldc, add, 0);
  if (n > (Vectors - 1) * kLanes)
    product_stripe<Multiply, Across, kTileRows, Vectors, true>(m, k, a, lda, b, ldb, c, ldc, add,
                                                               static_cast<int>(n - (Vectors - 1) * kLanes));
  else if constexpr (Vectors > 1)
    if (n > 0) product_stripes<Multiply, Across, Vectors - 1>(m, n, k, a, lda, b, ldb, c, ldc, add);
}

template <class Multiply, bool Across>
void product_of(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
                std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  for (std::int64_t first = 0; first == 0 || first < k; first += kDepth) {  // once when k = 0, for zeros
    const std::int64_t depth = k - first < kDepth ? k - first : kDepth;
    product_stripes<Multiply, Across, kTileVectors>(m, n, depth, a + first * (Across ? lda : 1), lda, b + first * ldb,
                                                    ldb, c, ldc, add || first > 0);
  }
}

template <class Multiply>
void product_by(bool across, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
                const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  if (across)
    product_of<Multiply, true>(m, n, k, a, lda, b, ldb, c, ldc, add);
  else
    product_of<Multiply, false>(m, n, k, a, lda, b, ldb, c, ldc, add);
}

}  // namespace
