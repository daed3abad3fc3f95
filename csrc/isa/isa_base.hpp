// Portable vectors of four floats (SSE2 on x86-64, NEON on arm64); multiply and add round separately.
#pragma once

#include <cstdint>

#include "support/half.hpp"

namespace {

struct Isa {
  typedef float F __attribute__((vector_size(16), may_alias));
  typedef std::int32_t I __attribute__((vector_size(16), may_alias));
  static constexpr const char* kName = "base";
  static constexpr int kLanes = 4;
  static constexpr int kVectors = 2;  // vectors across a block
  static constexpr int kHeight = 6;   // rows of a register tile: 12 of the 16 registers accumulate

  static F set1(float x) { return F{x, x, x, x}; }
  static F load(const float* p) { return *reinterpret_cast<const F*>(p); }
  static void store(float* p, F x) { *reinterpret_cast<F*>(p) = x; }
  static F load_any(const float* p) {
    F x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
  static void store_any(float* p, F x) { __builtin_memcpy(p, &x, sizeof x); }
  static F widen(const std::uint16_t* half) {
    return F{widen_half(half[0]), widen_half(half[1]), widen_half(half[2]), widen_half(half[3])};
  }
  static float widen_one(std::uint16_t half) { return widen_half(half); }
  // The first n lanes, 1..kLanes, of any address; the others are zero or left alone.
  static F load_first(const float* p, int n) {
    return F{p[0], n > 1 ? p[1] : 0.0f, n > 2 ? p[2] : 0.0f, n > 3 ? p[3] : 0.0f};
  }
  static void store_first(float* p, F x, int n) {
    for (int i = 0; i < n; ++i) p[i] = x[i];
  }
  static float sum(F x) { return (x[0] + x[2]) + (x[1] + x[3]); }
  static F madd(F a, F b, F c) { return a * b + c; }
  static float madd(float a, float b, float c) { return a * b + c; }
  static F root(F x) {
    return F{__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
  }

  // Adds one to each lane of the counter for every vector whose lane is above the bar (NaN never is).
  static void count_above(std::int32_t* counter, const F (&x)[kVectors], F bar) {
    *reinterpret_cast<I*>(counter) -= (x[0] > bar) + (x[1] > bar);
  }
  static bool any_above(const F (&x)[kVectors], F bar) {
    const I hit = (x[0] > bar) | (x[1] > bar);
    return (hit[0] | hit[1] | hit[2] | hit[3]) != 0;
  }
  static std::uint32_t above(F x, F bar) {  // bit i: lane i
    const I hit = x > bar;
    return static_cast<std::uint32_t>((hit[0] & 1) | (hit[1] & 2) | (hit[2] & 4) | (hit[3] & 8));
  }

  static int count(std::uint32_t lanes) { return static_cast<int>(0x4332322132212110u >> 4 * lanes & 7); }

  // Writes the lanes in the bit mask one after the other, and their ids; returns how many. Writes kLanes places.
  static int append(float* logits, std::int32_t* ids, F x, I id, std::uint32_t lanes) {
    int n = 0;
    for (; lanes; lanes &= lanes - 1) {
      const int lane = __builtin_ctz(lanes);
      logits[n] = x[lane];
      ids[n++] = id[lane];
    }
    return n;
  }
  static I load_ids(const std::int32_t* p) { return *reinterpret_cast<const I*>(p); }
  static I ids_from(std::int32_t first) { return I{first, first + 1, first + 2, first + 3}; }
};

}  // namespace
