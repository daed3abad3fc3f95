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

}  // namespace
#endif

std::vector<const Unit*> available_units() {
  std::vector<const Unit*> found;
#ifdef RSIR_X86
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
  if (&unit == &unit_avx512() && __builtin_cpu_supports("avx512bf16")) return kNativePairProduct;
#endif
  return unit.pair_product;
}

}  // namespace rsir
