// Pairs of bfloat16 in 32 bits, kept where a float would stand; the first one is in the low half.
#pragma once

#include <cstdint>
#include <cstring>

namespace rsir {

// To the nearest, ties to even; a NaN stays one.
inline std::uint32_t round_to_bfloat16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

inline void store_pair(float* to, float first, float second) {
  const std::uint32_t pair = round_to_bfloat16(first) | round_to_bfloat16(second) << 16;
  std::memcpy(to, &pair, sizeof pair);
}

}  // namespace rsir
