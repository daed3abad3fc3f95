// Logits of single items in the very arithmetic of the scan, and the multiply-adds that benchmarks hold the scan
// against. Everything here has internal linkage; see isa/unit.hpp for why.
#pragma once

#include <cstdint>

#include "isa/scan.hpp"

namespace {

// Eight independent chains hide the latency of the multiply-add.
void dots(const float* weights, std::int64_t dim, const float* query, const std::int32_t* ids, std::int64_t n,
          float* out) {
  constexpr int kChains = 8;
  const auto fetch = [&](std::int64_t from) {  // items lie far apart
    for (std::int64_t i = from; i < n && i < from + kChains; ++i)
      for (std::int64_t t = 0; t < dim; t += 16) __builtin_prefetch(weights + ids[i] * dim + t);
  };
  fetch(0);
  for (std::int64_t i = 0; i < n; i += kChains) {
    const float* item[kChains];
    float acc[kChains];
    for (int c = 0; c < kChains; ++c) {
      item[c] = weights + static_cast<std::int64_t>(ids[i + c < n ? i + c : i]) * dim;
      acc[c] = 0.0f;
    }
    fetch(i + kChains);
    for (std::int64_t t = 0; t < dim; ++t)
#pragma GCC unroll 8
      for (int c = 0; c < kChains; ++c) acc[c] = Isa::madd(query[t], item[c][t], acc[c]);
    for (int c = 0; c < kChains && i + c < n; ++c) out[i + c] = acc[c];
  }
}

void half_dots(const std::uint16_t* half_panels, std::int64_t dim, const float* query, const std::int32_t* ids,
               std::int64_t n, float* out) {
  constexpr int kChains = 8;
  for (std::int64_t i = 0; i < n; i += kChains) {
    const std::uint16_t* item[kChains];
    float acc[kChains];
    for (int c = 0; c < kChains; ++c) {
      const std::int64_t index = ids[i + c < n ? i + c : i] - 1;
      item[c] = half_panels + index / kWidth * kWidth * dim + index % kWidth;
      acc[c] = 0.0f;
    }
    for (std::int64_t t = 0; t < dim; ++t)
#pragma GCC unroll 8
      for (int c = 0; c < kChains; ++c)
        acc[c] = Isa::madd(query[t], Isa::widen_one(item[c][t * kWidth]), acc[c]);
    for (int c = 0; c < kChains && i + c < n; ++c) out[i + c] = acc[c];
  }
}

double burn(std::int64_t iterations, float* sink) {
  constexpr int kChains = Isa::kHeight * Isa::kVectors;
  Isa::F acc[kChains];
  const Isa::F a = Isa::set1(sink[0]), b = Isa::set1(sink[1]);
#pragma GCC unroll 32
  for (int c = 0; c < kChains; ++c) acc[c] = Isa::set1(static_cast<float>(c));
  for (std::int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 32
    for (int c = 0; c < kChains; ++c) acc[c] = Isa::madd(acc[c], a, b);
  alignas(64) float lanes[Isa::kLanes];
  float sum = 0.0f;
  for (int c = 0; c < kChains; ++c) {
    Isa::store(lanes, acc[c]);
    for (int i = 0; i < Isa::kLanes; ++i) sum += lanes[i];
  }
  sink[2] = sum;
  return 2.0 * kChains * Isa::kLanes * static_cast<double>(iterations);
}

}  // namespace
