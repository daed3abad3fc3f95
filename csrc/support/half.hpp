// Half precision (IEEE binary16) by whole numbers, for machines and units without instructions for it.
//
// Internal linkage: units of different instruction sets must not share these (see isa/unit.hpp).
#pragma once

#include <cstdint>

namespace {

// Exact; a NaN stays one.
[[maybe_unused]] inline float widen_half(std::uint16_t half) {
  std::uint32_t bits = static_cast<std::uint32_t>(half & 0x7fff) << 13;
  const std::uint32_t exponent = bits & 0x0f800000;
  bits += 0x38000000;                               // exponents are biased by 15, not 127
  if (exponent == 0x0f800000) bits += 0x38000000;   // infinity or NaN
  if (exponent == 0) {                              // zero or subnormal: a whole number of 2^-24
    bits += 0x00800000;
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    x -= 6.103515625e-05f;  // 2^-14
    __builtin_memcpy(&bits, &x, sizeof bits);
  }
  bits |= static_cast<std::uint32_t>(half & 0x8000) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

// To the nearest, ties to even; what is too large becomes infinity.
[[maybe_unused]] inline std::uint16_t round_to_half(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00);
  if (bits >= 0x477ff000) return static_cast<std::uint16_t>(sign | 0x7c00);
  if (bits < 0x38800000) {  // below 2^-14: adding 0.5 leaves whole numbers of 2^-24 in the lowest bits, rounded
    float y;
    __builtin_memcpy(&y, &bits, sizeof y);
    y += 0.5f;
    __builtin_memcpy(&bits, &y, sizeof bits);
    return static_cast<std::uint16_t>(sign | (bits - 0x3f000000));
  }
  bits += 0xc8000fff + (bits >> 13 & 1);
  return static_cast<std::uint16_t>(sign | bits >> 13);
}

}  // namespace
