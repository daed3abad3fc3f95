// The item table of a model, packed once for the scan of one instruction set.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "kernels.hpp"

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
      : kernels(kernels), weights(weights), num_items(num_items), dim(dim) {
    const std::int64_t width = kernels.width;
    blocks = (num_items + width - 1) / width;
    packed_ = allocate_aligned<float>(blocks * width * dim);
    for (std::int64_t block = 0; block < blocks; ++block) {
      float* to = packed_.get() + block * width * dim;
      const float* from = weights + (block * width + 1) * dim;
      const std::int64_t used = num_items - block * width < width ? num_items - block * width : width;
      for (std::int64_t t = 0; t < dim; ++t)
        for (std::int64_t lane = 0; lane < width; ++lane)
          to[t * width + lane] = lane < used ? from[lane * dim + t] : std::numeric_limits<float>::quiet_NaN();
    }
  }

  const float* panels() const { return packed_.get(); }
  std::int64_t bytes() const { return blocks * kernels.width * dim * static_cast<std::int64_t>(sizeof(float)); }

  const Kernels& kernels;
  const float* const weights;
  const std::int64_t num_items;
  const std::int64_t dim;
  std::int64_t blocks;

 private:
  Aligned<float> packed_;
};

}  // namespace rsir
