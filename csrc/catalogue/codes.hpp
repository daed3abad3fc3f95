// A catalogue in whole numbers of eight bits, and how far what they say of a logit can lie from it.
//
// With scales s[t] = max |e[t]| over the items, an item e is coded as c[t] = round(127 e[t] / s[t]), and a query q as
// r[t] = round(q[t] s[t] / step), step = max |q[t] s[t]| / 127. Their score is the whole number
// sum r[t] (c[t] + 128), as the products want one factor without a sign. With v = step / 127 * (score - 128 sum r[t]),
//
//     |q . e - v| <= |q'| |e' - e^| + |q' - q^| |e^|    where q' = q s, e' = e / s, e^ = c / 127, q^ = step r,
//
// by Cauchy and Schwarz; the largest |e' - e^| and |e^| of all items are kept. What float32 rounds in a chain of d
// multiply-adds is at most d 2^-23 |q'| |e'|, for d below 2^22, and where numbers are too small for that, d 2^-125.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "isa/screen.hpp"
#include "support/memory.hpp"

namespace rsir {

// What is known of the scores of one query.
struct CodedQuery {
  double step = 0.0;    // of a logit, for each one in the score
  double offset = 0.0;  // of the score at logit 0
  double error = 0.0;   // no logit lies further from what its score says

  // Items whose score is not above this one have a logit below x.
  std::int32_t below(double x) const { return whole(std::floor((x - error) / step + offset) - 1.0); }
  // Items whose score is above this one have a logit above x.
  std::int32_t above(double x) const { return whole(std::ceil((x + error) / step + offset) + 1.0); }
  // Of two items, one whose logit is not lower has a score that is lower by no more than this.
  std::int32_t slack() const { return whole(std::ceil(2.0 * error / step) + 1.0); }

 private:
  static std::int32_t whole(double x) {
    return static_cast<std::int32_t>(std::clamp(x, -2147483647.0, 2147483646.0));
  }
};

class Codes {
 public:
  // value(item, t): of item 0..num_items - 1
  template <class Value>
  Codes(std::int64_t num_items, std::int64_t dim, Value value)
      : quads((dim + 3) / 4), blocks((num_items + kScreenWidth - 1) / kScreenWidth), dim_(dim) {
    if (dim > kMostDim) return;
    scales_.assign(static_cast<std::size_t>(dim), 0.0f);
    for (std::int64_t item = 0; item < num_items; ++item)
      for (std::int64_t t = 0; t < dim; ++t) {
        const float size = std::fabs(value(item, t));
        if (!(size <= std::numeric_limits<float>::max())) return;  // NaN and infinity have no codes
        scales_[t] = std::max(scales_[t], size);
      }
    codes_ = allocate_aligned<std::uint8_t>(blocks * quads * kScreenWidth * 4);
    std::fill(codes_.get(), codes_.get() + blocks * quads * kScreenWidth * 4, std::uint8_t{128});
    std::vector<double> inverse(scales_.size());
    for (std::int64_t t = 0; t < dim; ++t) inverse[t] = scales_[t] > 0.0f ? 127.0 / scales_[t] : 0.0;
    double lost = 0.0, size = 0.0;
    for (std::int64_t item = 0; item < num_items; ++item) {
      std::uint8_t* to = codes_.get() + (item / kScreenWidth * quads * kScreenWidth + item % kScreenWidth) * 4;
      double own_lost = 0.0, own_size = 0.0;
      for (std::int64_t t = 0; t < dim; ++t) {
        const double exact = value(item, t) * inverse[t];
        const std::int32_t code = nearest(exact);
        const double difference = exact - code;
        own_lost += difference * difference;
        own_size += static_cast<double>(code * code);
        to[t / 4 * kScreenWidth * 4 + t % 4] = static_cast<std::uint8_t>(code + 128);
      }
      lost = std::max(lost, own_lost);
      size = std::max(size, own_size);
    }
    lost_ = std::sqrt(lost) / 127.0;
    size_ = std::sqrt(size) / 127.0;
    usable = true;
  }

  // Writes the codes of a query, 4 quads of them; whether they can stand for it.
  bool code(const float* query, std::int8_t* to, CodedQuery& out) const {
    double most = 0.0, norm = 0.0;
    for (std::int64_t t = 0; t < dim_; ++t) {
      const double scaled = static_cast<double>(query[t]) * scales_[t];
      most = std::max(most, std::fabs(scaled));
      norm += scaled * scaled;
      if (!(std::fabs(query[t]) <= std::numeric_limits<float>::max())) return false;
    }
    if (!(most > 1e-300)) return false;
    const double inverse = 127.0 / most;
    double lost = 0.0;
    std::int32_t sum = 0;
    for (std::int64_t t = 0; t < dim_; ++t) {
      const double exact = static_cast<double>(query[t]) * scales_[t] * inverse;
      const std::int32_t code = nearest(exact);
      lost += (exact - code) * (exact - code);
      sum += code;
      to[t] = static_cast<std::int8_t>(code);
    }
    std::fill(to + dim_, to + 4 * quads, std::int8_t{0});
    norm = std::sqrt(norm);
    const double reach = norm * (size_ + lost_);  // no logit is further from 0
    if (!(reach < 1e38)) return false;            // float32 may end in infinity
    const double rounding = static_cast<double>(dim_) * (1.0 / (1 << 23)) + 1e-9;  // of float32 and, amply, here
    out.error = norm * lost_ + std::sqrt(lost) / inverse * size_ + rounding * reach +
                static_cast<double>(dim_) * std::ldexp(1.0, -125);
    out.step = most / 127.0 / 127.0;
    out.offset = 128.0 * sum;
    return true;
  }

  const std::uint8_t* data() const { return codes_.get(); }
  std::int64_t bytes() const { return codes_ ? blocks * quads * kScreenWidth * 4 : 0; }

  const std::int64_t quads, blocks;
  bool usable = false;  // not of items that are not finite, or too wide

 private:
  static constexpr std::int64_t kMostDim = 4096;  // scores are below 2^31

  static std::int32_t nearest(double x) {
    return std::clamp(static_cast<std::int32_t>(x + (x < 0.0 ? -0.5 : 0.5)), -127, 127);
  }

  const std::int64_t dim_;
  std::vector<float> scales_;
  Aligned<std::uint8_t> codes_;
  double lost_ = 0.0, size_ = 0.0;
};

}  // namespace rsir
