#include "isa/dispatch.hpp"

#ifdef RSIR_X86
#include <cpuid.h>
#endif

namespace rsir {

#ifdef RSIR_X86
namespace {

bool converts_half() {  // not all compilers know "f16c" as a feature to ask for
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

#ifdef RSIR_VNNI
// The unit of AVX-512 with products of bytes beside it.
const Unit& unit_avx512vnni() {
  static const Unit unit = [] {
    Unit made = unit_avx512();
    made.name = "avx512vnni";
    made.screen = kScreen;
    return made;
  }();
  return unit;
}
#endif

}  // namespace
#endif

std::vector<const Unit*> available_units() {
  std::vector<const Unit*> found;
#ifdef RSIR_X86
#ifdef RSIR_VNNI
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni")) found.push_back(&unit_avx512vnni());
#endif
  if (__builtin_cpu_supports("avx512f")) found.push_back(&unit_avx512());
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && converts_half()) found.push_back(&unit_avx2());
#endif
  found.push_back(&unit_base());
  return found;
}

const Unit* find_unit(const std::string& name) {
  for (const Unit* unit : available_units())
    if (name == unit->name) return unit;
  return nullptr;
}

Product best_pair_product(const Unit& unit) {
#ifdef RSIR_BF16
  if (unit.pair_product == unit_avx512().pair_product && __builtin_cpu_supports("avx512bf16")) return kNativePairProduct;
#endif
  return unit.pair_product;
}

}  // namespace rsir
