#include "isa/isa_avx512.hpp"
// the vectors come first: the rest is written over them
#include "isa/products.hpp"
#include "isa/unit.hpp"

namespace {

struct Native {
  static Vector madd(Vector a, Vector b, Vector c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

}  // namespace

const rsir::Product rsir::kNativePairProduct = product_by<Native>;
