// The item table of a model, packed once for the scan of one instruction set.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "isa/unit.hpp"
#include "support/half.hpp"

namespace rsir {

struct FreeMemory {
  void operator()(void* p) const { std::free(p); }
};

template <class T>
using Aligned = std::unique_ptr<T[], FreeMemory>;

// Uninitialised, 64-byte aligned.
template <class T>
Aligned<T> allocate_aligned(std::int64_t count) {
  const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + 64) / 64 * 64;
  void* p = std::aligned_alloc(64, bytes);
  if (!p) throw std::bad_alloc();
  return Aligned<T>(static_cast<T*>(p));
}

// Kernels by name that this machine can run, best first.
std::vector<const Kernels*> available_kernels();

class Table {
 public:
  // weights: (num_items + 1, dim), row 0 is padding; kept by reference for the logits of single items.
  Table(const float* weights, std::int64_t num_items, std::int64_t dim, const Kernels& kernels)
      : Table(num_items, dim, kernels, weights) {
    panels_ = pack<float>(weights, std::numeric_limits<float>::quiet_NaN(), [](float x) { return x; });
  }

  // In half precision: of float weights their rounding, of half ones these; the weights are not kept.
  struct Half {};
  Table(const float* weights, std::int64_t num_items, std::int64_t dim, const Kernels& kernels, Half)
      : Table(num_items, dim, kernels, nullptr) {
    half_panels_ = pack<std::uint16_t>(weights, kHalfNan, round_to_half);
  }
  Table(const std::uint16_t* weights, std::int64_t num_items, std::int64_t dim, const Kernels& kernels)
      : Table(num_items, dim, kernels, nullptr) {
    half_panels_ = pack<std::uint16_t>(weights, kHalfNan, [](std::uint16_t x) { return x; });
  }

  const float* panels() const { return panels_.get(); }
  const std::uint16_t* half_panels() const { return half_panels_.get(); }
  std::int64_t bytes() const {
    return blocks * kernels.width * dim * static_cast<std::int64_t>(panels_ ? sizeof(float) : sizeof(std::uint16_t));
  }

  // out[i] = logit of item ids[i], in the very arithmetic of the scan.
  void dots(const float* query, const std::int32_t* ids, std::int64_t n, float* out) const {
    if (panels_)
      kernels.dots(weights_, dim, query, ids, n, out);
    else
      kernels.half_dots(half_panels_.get(), dim, query, ids, n, out);
  }

  const Kernels& kernels;
  const std::int64_t num_items;
  const std::int64_t dim;
  const std::int64_t blocks;

 private:
  static constexpr std::uint16_t kHalfNan = 0x7e00;

  Table(std::int64_t num_items, std::int64_t dim, const Kernels& kernels, const float* weights)
      : kernels(kernels),
        num_items(num_items),
        dim(dim),
        blocks((num_items + kernels.width - 1) / kernels.width),
        weights_(weights) {}

  template <class To, class From, class Convert>
  Aligned<To> pack(const From* weights, To unused, Convert convert) const {
    const std::int64_t width = kernels.width;
    Aligned<To> packed = allocate_aligned<To>(blocks * width * dim);
    for (std::int64_t block = 0; block < blocks; ++block) {
      To* to = packed.get() + block * width * dim;
      const From* from = weights + (block * width + 1) * dim;
      const std::int64_t used = num_items - block * width < width ? num_items - block * width : width;
      for (std::int64_t t = 0; t < dim; ++t)
        for (std::int64_t lane = 0; lane < width; ++lane)
          to[t * width + lane] = lane < used ? convert(from[lane * dim + t]) : unused;
    }
    return packed;
  }

  const float* const weights_;
  Aligned<float> panels_;
  Aligned<std::uint16_t> half_panels_;
};

}  // namespace rsir
