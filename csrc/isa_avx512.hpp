// AVX-512 Foundation.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Isa {
  typedef __m512 F;
  static constexpr const char* kName = "avx512";
  static constexpr int kLanes = 16;
  // 24 of the 32 registers accumulate. 14 x 2 uses more of them and reaches 0.85 of the multiply-add peak on Sapphire
  // Rapids where 8 x 3 reaches 0.90: it loads 0.46 values a multiply-add instead of 0.57.
  static constexpr int kVectors = 3;
  static constexpr int kHeight = 8;

  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_load_ps(p); }
  static void store(float* p, F x) { _mm512_store_ps(p, x); }
  static F load_any(const float* p) { return _mm512_loadu_ps(p); }
  static void store_any(float* p, F x) { _mm512_storeu_ps(p, x); }
  // The first n lanes, 1..kLanes, of any address; the others are zero or left alone.
  static F load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p); }
  static void store_first(float* p, F x, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), x);
  }
  static float sum(F x) {  // not _mm512_reduce_add_ps, of which GCC 12 warns that it reads what nobody wrote
    const __m512d bits = _mm512_castps_pd(x);
    const __m256 half = _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xF, bits, 0)),
                                      _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xF, bits, 1)));
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
  }
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
    unsigned hit = 0;
    for (int v = 0; v < kVectors; ++v) hit |= _mm512_cmp_ps_mask(x[v], bar, _CMP_GT_OQ);
    return hit != 0;
  }
  static std::uint32_t above(F x, F bar) { return _mm512_cmp_ps_mask(x, bar, _CMP_GT_OQ); }

  // Puts a candidate behind the equal ones of a list in descending order and drops the last entry;
  // stride is a multiple of 16. Shifts whole vectors: 2x the speed of moving one entry after the other.
  static void insert_sorted(float* logits, std::int32_t* ids, std::int64_t stride, float logit, std::int32_t id) {
    const __m512 candidate = _mm512_set1_ps(logit);
    for (std::int64_t i = stride - kLanes; i >= 0; i -= kLanes) {
      const __m512i here = _mm512_load_si512(logits + i), ids_here = _mm512_load_si512(ids + i);
      const __m512i before = i > 0 ? _mm512_load_si512(logits + i - kLanes) : here;
      const __m512i ids_before = i > 0 ? _mm512_load_si512(ids + i - kLanes) : ids_here;
      const unsigned keep = _mm512_cmp_ps_mask(_mm512_castsi512_ps(here), candidate, _CMP_GE_OQ);
      const unsigned first = i == 0 || logits[i - 1] >= logit;
      const __mmask16 place = static_cast<__mmask16>(~keep & ((keep << 1) | first));
      const __mmask16 shift = static_cast<__mmask16>(~keep);
      __m512i moved = _mm512_mask_alignr_epi32(here, shift, here, before, 15);
      __m512i ids_moved = _mm512_mask_alignr_epi32(ids_here, shift, ids_here, ids_before, 15);
      moved = _mm512_mask_mov_epi32(moved, place, _mm512_castps_si512(candidate));
      ids_moved = _mm512_mask_mov_epi32(ids_moved, place, _mm512_set1_epi32(id));
      _mm512_store_si512(logits + i, moved);
      _mm512_store_si512(ids + i, ids_moved);
    }
  }
};

}  // namespace
