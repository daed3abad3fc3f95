// Dropout and layer norms of a Transformer layer, forward and backward, written once over the Isa vectors of the unit
// that includes them.
#pragma once

#include <cstdint>

#include "isa/dense.hpp"
#include "isa/unit.hpp"

namespace {

using rsir::LayerBytes;
using rsir::LayerGradients;
using rsir::LayerSaved;
using rsir::LayerShape;
using rsir::LayerTransposed;
using rsir::LayerWeights;

typedef unsigned char ByteVector __attribute__((vector_size(kLanes)));

// Factors of dropout: 0 where a byte is below `dropped`, else the scale; 1 everywhere without bytes.
class Dropout {
 public:
  explicit Dropout(const LayerShape& s) : dropped_(s.dropped), scale_(s.kept_scale) {}

  Vector factors(const unsigned char* bytes, std::int64_t i, Full) const { return get(bytes, i, kLanes); }
  Vector factors(const unsigned char* bytes, std::int64_t i, int lanes) const { return get(bytes, i, lanes); }

 private:
  Vector get(const unsigned char* bytes, std::int64_t i, int lanes) const {
    if (!bytes) return Isa::set1(1.0f);
    ByteVector some = {};
    __builtin_memcpy(&some, bytes + i, static_cast<std::size_t>(lanes));
    const IntVector wide = __builtin_convertvector(some, IntVector);
    return wide < dropped_ ? Isa::set1(0.0f) : Isa::set1(scale_);
  }

  int dropped_;
  float scale_;
};

// Where dropout's bytes of a position are, or null.
inline const unsigned char* at(const unsigned char* bytes, std::int64_t i) { return bytes ? bytes + i : nullptr; }

// normed = (x + dropout(z)) normalised, y = normed weight + bias; one position. Returns the reciprocal deviation.
// normed and y may be the same, and be x or z.
inline float normalise(std::int64_t n, float epsilon, const Dropout& dropout, const unsigned char* bytes,
                       const float* x, const float* z, const float* weight, const float* bias, float* normed,
                       float* y) {
  Vector sum = Isa::set1(0.0f);
  each_vector(n, [&](std::int64_t i, auto lanes) {
    const Vector here = Isa::madd(load(z + i, lanes), dropout.factors(bytes, i, lanes), load(x + i, lanes));
    store(normed + i, here, lanes);
    sum += here;
  });
  const float mean = Isa::sum(sum) / static_cast<float>(n);
  Vector square = Isa::set1(0.0f);
  each_vector(n, [&](std::int64_t i, auto lanes) {
    store(normed + i, load(normed + i, lanes) - Isa::set1(mean), lanes);
    const Vector here = load(normed + i, lanes);  // lanes beyond the end are zero again
    square = Isa::madd(here, here, square);
  });
  const float rstd = 1.0f / __builtin_sqrtf(Isa::sum(square) / static_cast<float>(n) + epsilon);
  each_vector(n, [&](std::int64_t i, auto lanes) {
    const Vector here = load(normed + i, lanes) * Isa::set1(rstd);
    store(normed + i, here, lanes);
    store(y + i, Isa::madd(here, load(weight + i, lanes), load(bias + i, lanes)), lanes);
  });
  return rstd;
}

// From the gradient of y that of x, and of z behind its dropout; adds to those of weight and bias.
inline void normalise_backward(std::int64_t n, const Dropout& dropout, const unsigned char* bytes, const float* normed,
                               float rstd, const float* weight, const float* grad_y, float* grad_weight,
                               float* grad_bias, float* grad_x, float* grad_z) {
  Vector sum = Isa::set1(0.0f), along = Isa::set1(0.0f);
  each_vector(n, [&](std::int64_t i, auto lanes) {
    const Vector upstream = load(grad_y + i, lanes), here = load(normed + i, lanes);
    const Vector grad = upstream * load(weight + i, lanes);
    sum += grad;
    along = Isa::madd(grad, here, along);
    store(grad_weight + i, Isa::madd(upstream, here, load(grad_weight + i, lanes)), lanes);
    store(grad_bias + i, load(grad_bias + i, lanes) + upstream, lanes);
  });
  const Vector mean = Isa::set1(Isa::sum(sum) / static_cast<float>(n));
  const Vector slope = Isa::set1(-Isa::sum(along) / static_cast<float>(n));
  each_vector(n, [&](std::int64_t i, auto lanes) {
    const Vector centred = load(grad_y + i, lanes) * load(weight + i, lanes) - mean;
    const Vector grad = Isa::madd(slope, load(normed + i, lanes), centred) * Isa::set1(rstd);
    store(grad_x + i, grad, lanes);
    store(grad_z + i, grad * dropout.factors(bytes, i, lanes), lanes);
  });
}

}  // namespace
