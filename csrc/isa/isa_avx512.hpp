// AVX-512 Foundation.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Isa {
  typedef __m512 F;
  typedef __m512i I;
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
  static F widen(const std::uint16_t* half) {
    // of all lanes: GCC 12 warns of the register that the plain form leaves undefined
    return _mm512_maskz_cvtph_ps(0xffff, _mm256_load_si256(reinterpret_cast<const __m256i*>(half)));
  }
  static float widen_one(std::uint16_t half) { return _cvtsh_ss(half); }
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
  static F root(F x) { return _mm512_maskz_sqrt_ps(0xffff, x); }

  static void count_above(std::int32_t* counter, const F (&x)[kVectors], F bar) {
    const __m512i one = _mm512_set1_epi32(1);
    __m512i lanes = _mm512_load_si512(counter);
    for (int v = 0; v < kVectors; ++v)
      lanes = _mm512_mask_add_epi32(lanes, _mm512_cmp_ps_mask(x[v], bar, _CMP_GT_OQ), lanes, one);
    _mm512_store_si512(counter, lanes);
  }
  static bool any_above(const F (&x)[kVectors], F bar) {
    __mmask16 none = _mm512_cmp_ps_mask(x[0], bar, _CMP_NGT_UQ);  // one mask to move, not one a vector
    for (int v = 1; v < kVectors; ++v) none = _mm512_mask_cmp_ps_mask(none, x[v], bar, _CMP_NGT_UQ);
    return none != 0xFFFF;
  }
  static std::uint32_t above(F x, F bar) { return _mm512_cmp_ps_mask(x, bar, _CMP_GT_OQ); }

  static int count(std::uint32_t lanes) { return __builtin_popcount(lanes); }

  // Writes the lanes in the bit mask one after the other, and their ids; returns how many. Writes kLanes places:
  // compressing straight into memory is slow on some processors.
  static int append(float* logits, std::int32_t* ids, F x, I id, std::uint32_t lanes) {
    const __mmask16 mask = static_cast<__mmask16>(lanes);
    _mm512_storeu_ps(logits, _mm512_maskz_compress_ps(mask, x));
    _mm512_storeu_si512(ids, _mm512_maskz_compress_epi32(mask, id));
    return count(lanes);
  }
  static I load_ids(const std::int32_t* p) { return _mm512_load_si512(p); }
  static I ids_from(std::int32_t first) {
    return _mm512_add_epi32(_mm512_set1_epi32(first),
                            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }
};

}  // namespace
