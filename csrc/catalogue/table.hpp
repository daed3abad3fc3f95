// The item table of a model, packed once for the scan of one instruction set.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>

#include "catalogue/codes.hpp"
#include "isa/unit.hpp"
#include "support/half.hpp"
#include "support/memory.hpp"

namespace rsir {

class Table {
 public:
  // weights: (num_items + 1, dim), row 0 is padding; kept by reference for the logits of single items.
  Table(const float* weights, std::int64_t num_items, std::int64_t dim, const Unit& unit)
      : Table(num_items, dim, unit, weights) {
    panels_ = pack<float>(weights, std::numeric_limits<float>::quiet_NaN(), [](float x) { return x; });
  }

  // In half precision: of float weights their rounding, of half ones these; the weights are not kept.
  struct Half {};
  Table(const float* weights, std::int64_t num_items, std::int64_t dim, const Unit& unit, Half)
      : Table(num_items, dim, unit, nullptr) {
    half_panels_ = pack<std::uint16_t>(weights, kHalfNan, round_to_half);
  }
  Table(const std::uint16_t* weights, std::int64_t num_items, std::int64_t dim, const Unit& unit)
      : Table(num_items, dim, unit, nullptr) {
    half_panels_ = pack<std::uint16_t>(weights, kHalfNan, [](std::uint16_t x) { return x; });
  }

  const float* panels() const { return panels_.get(); }
  const std::uint16_t* half_panels() const { return half_panels_.get(); }
  std::int64_t bytes() const {
    return blocks * unit.width * dim * static_cast<std::int64_t>(panels_ ? sizeof(float) : sizeof(std::uint16_t));
  }

  // out[i] = logit of item ids[i], in the very arithmetic of the scan.
  void dots(const float* query, const std::int32_t* ids, std::int64_t n, float* out) const {
    if (panels_)
      unit.dots(weights_, dim, query, ids, n, out);
    else
      unit.half_dots(half_panels_.get(), dim, query, ids, n, out);
  }

  // Codes to screen the scan of so many rows by, or null: where the unit has no screen, or the items have no codes.
  // They are made once enough rows were scanned to be worth it, and from the first one on after screen_always().
  const Codes* codes_for(std::int64_t rows) const {
    constexpr std::int64_t kRows = 256, kItems = 512;  // making them takes as long as scanning about 100 rows
    if (!unit.screen || unit.width != kScreenWidth || (!always_ && num_items < kItems)) return nullptr;
    if (!always_ && scanned_.fetch_add(rows, std::memory_order_relaxed) + rows < kRows) return nullptr;
    std::call_once(coded_, [this] {
      codes_ = panels_ ? std::make_unique<Codes>(num_items, dim,
                                                 [this](std::int64_t item, std::int64_t t) {
                                                   return weights_[(item + 1) * dim + t];
                                                 })
                       : std::make_unique<Codes>(num_items, dim, [this](std::int64_t item, std::int64_t t) {
                           const std::int64_t width = unit.width;
                           return widen_half(half_panels_[(item / width * dim + t) * width + item % width]);
                         });
    });
    return codes_->usable ? codes_.get() : nullptr;
  }
  void screen_always() { always_ = true; }
  mutable std::atomic<std::int64_t> screened{0};  // rows that codes answered so far

  const Unit& unit;
  const std::int64_t num_items;
  const std::int64_t dim;
  const std::int64_t blocks;

 private:
  static constexpr std::uint16_t kHalfNan = 0x7e00;

  Table(std::int64_t num_items, std::int64_t dim, const Unit& unit, const float* weights)
      : unit(unit),
        num_items(num_items),
        dim(dim),
        blocks((num_items + unit.width - 1) / unit.width),
        weights_(weights) {}

  template <class To, class From, class Convert>
  Aligned<To> pack(const From* weights, To unused, Convert convert) const {
    const std::int64_t width = unit.width;
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
  bool always_ = false;
  mutable std::atomic<std::int64_t> scanned_{0};
  mutable std::once_flag coded_;
  mutable std::unique_ptr<Codes> codes_;
};

}  // namespace rsir
