// AVX2 with fused multiply-add and conversion of half precision.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Isa {
  typedef __m256 F;
  typedef __m256i I;
  static constexpr const char* kName = "avx2";
  static constexpr int kLanes = 8;
  static constexpr int kVectors = 2;
  static constexpr int kHeight = 6;  // 12 of the 16 registers accumulate

  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_load_ps(p); }
  static void store(float* p, F x) { _mm256_store_ps(p, x); }
  static F load_any(const float* p) { return _mm256_loadu_ps(p); }
  static void store_any(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F widen(const std::uint16_t* half) {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(half)));
  }
  static float widen_one(std::uint16_t half) { return _cvtsh_ss(half); }
  // The first n lanes, 1..kLanes, of any address; the others are zero or left alone.
  static __m256i lanes_below(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F load_first(const float* p, int n) { return _mm256_maskload_ps(p, lanes_below(n)); }
  static void store_first(float* p, F x, int n) { _mm256_maskstore_ps(p, lanes_below(n), x); }
  static float sum(F x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  static F madd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static float madd(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static F root(F x) { return _mm256_sqrt_ps(x); }

  static void count_above(std::int32_t* counter, const F (&x)[kVectors], F bar) {
    __m256i* lanes = reinterpret_cast<__m256i*>(counter);
    const __m256i first = _mm256_castps_si256(_mm256_cmp_ps(x[0], bar, _CMP_GT_OQ));
    const __m256i second = _mm256_castps_si256(_mm256_cmp_ps(x[1], bar, _CMP_GT_OQ));
    _mm256_store_si256(lanes, _mm256_sub_epi32(_mm256_load_si256(lanes), _mm256_add_epi32(first, second)));
  }
  static bool any_above(const F (&x)[kVectors], F bar) {
    return _mm256_movemask_ps(
               _mm256_or_ps(_mm256_cmp_ps(x[0], bar, _CMP_GT_OQ), _mm256_cmp_ps(x[1], bar, _CMP_GT_OQ))) != 0;
  }
  static std::uint32_t above(F x, F bar) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, bar, _CMP_GT_OQ)));
  }

  static int count(std::uint32_t lanes) { return __builtin_popcount(lanes); }

  // Writes the lanes in the bit mask one after the other, and their ids; returns how many. Writes kLanes places.
  static int append(float* logits, std::int32_t* ids, F x, I id, std::uint32_t lanes) {
    if (lanes == 0) return 0;
    alignas(32) float from[kLanes];
    alignas(32) std::int32_t ids_from[kLanes];
    store(from, x);
    _mm256_store_si256(reinterpret_cast<__m256i*>(ids_from), id);
    int n = 0;
    for (; lanes; lanes &= lanes - 1) {
      const int lane = __builtin_ctz(lanes);
      logits[n] = from[lane];
      ids[n++] = ids_from[lane];
    }
    return n;
  }
  static I load_ids(const std::int32_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
  static I ids_from(std::int32_t first) {
    return _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

}  // namespace
