// AVX-512 Foundation.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Isa {
  typedef __m512 F;
  static constexpr const char* kName = "avx512";
  static constexpr int kLanes = 16;
  static constexpr int kVectors = 2;
  static constexpr int kHeight = 14;  // 28 of the 32 registers accumulate

  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_load_ps(p); }
  static void store(float* p, F x) { _mm512_store_ps(p, x); }
  static F madd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static float madd(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

  static void count_above(std::int32_t* counter, const F (&x)[kVectors], F bar) {
    const __m512i one = _mm512_set1_epi32(1);
    __m512i lanes = _mm512_load_si512(counter);
    for (int v = 0; v < kVectors; ++v)
      lanes = _mm512_mask_add_epi32(lanes, _mm512_cmp_ps_mask(x[v], bar, _CMP_GT_OQ), lanes, one);
    _mm512_store_si512(counter, lanes);
  }
  static bool any_above(const F (&x)[kVectors], F bar) {
    return !_mm512_kortestz(_mm512_cmp_ps_mask(x[0], bar, _CMP_GT_OQ), _mm512_cmp_ps_mask(x[1], bar, _CMP_GT_OQ));
  }
  static std::uint32_t above(F x, F bar) { return _mm512_cmp_ps_mask(x, bar, _CMP_GT_OQ); }
};

}  // namespace
