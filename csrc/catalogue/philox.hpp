// Philox4x32-10 (Salmon et al., 2011): random numbers that are a pure function of a key and a counter,
// so that a draw depends on what is drawn and never on batch order or threads.
#pragma once

#include <cmath>
#include <cstdint>

namespace rsir {

struct PhiloxKey {
  std::uint32_t k0, k1;

  static PhiloxKey from_seed(std::uint64_t seed) {
    return {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  }
};

// First output word of the block at counter (c0, c1, c2, c3).
inline std::uint32_t philox_word(PhiloxKey key, std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                                 std::uint32_t c3) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ key.k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ key.k1;
    c3 = static_cast<std::uint32_t>(p0);
    key.k0 += 0x9E3779B9u;
    key.k1 += 0xBB67AE85u;
  }
  return c0;
}

// Standard Gumbel variate of an item; counters points at the row's three words, each in 0..2^32-1.
inline double gumbel(PhiloxKey key, std::uint32_t item, const std::int64_t* counters) {
  const std::uint32_t x =
      philox_word(key, item, static_cast<std::uint32_t>(counters[0]), static_cast<std::uint32_t>(counters[1]),
                  static_cast<std::uint32_t>(counters[2]));
  const double u = (static_cast<double>(x) + 0.5) * 0x1p-32;
  return -std::log(-std::log(u));
}

}  // namespace rsir
