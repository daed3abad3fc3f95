// Memory for vectors of any width.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

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

}  // namespace rsir
