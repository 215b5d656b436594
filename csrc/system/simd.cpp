#include "system/simd.h"

#include <cstdlib>
#include <stdexcept>

namespace fastbert {

bool simd_allowed(SimdLevel level) {
  const char* set = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string capability = set ? set : "";
  if (capability == "default") return level == SimdLevel::kScalar;
  if (capability == "avx2") return level <= SimdLevel::kAvx2;
  return true;
}

std::vector<SimdLevel> available_simd_levels() {
  std::vector<SimdLevel> levels{SimdLevel::kScalar};
#ifdef FASTBERT_NEON
  if (simd_allowed(SimdLevel::kNeon)) levels.push_back(SimdLevel::kNeon);
#endif
#ifdef FASTBERT_X86
  __builtin_cpu_init();
  if (simd_allowed(SimdLevel::kAvx2) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi"))
    levels.push_back(SimdLevel::kAvx2);
  if (simd_allowed(SimdLevel::kAvx512) && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("bmi"))
    levels.push_back(SimdLevel::kAvx512);
#endif
  return levels;
}

SimdLevel best_simd_level() {
  static const SimdLevel best = available_simd_levels().back();
  return best;
}

const char* simd_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::kNeon: return "neon";
    case SimdLevel::kAvx2: return "avx2";
    case SimdLevel::kAvx512: return "avx512";
    case SimdLevel::kScalar: break;
  }
  return "scalar";
}

SimdLevel simd_level_named(const std::string& name) {
  if (name == "auto") return best_simd_level();
  std::string known;
  for (const SimdLevel level : available_simd_levels()) {
    if (name == simd_name(level)) return level;
    known += std::string(known.empty() ? "" : ", ") + simd_name(level);
  }
  throw std::invalid_argument("simd='" + name + "': expected auto or what this machine runs: " + known);
}

}  // namespace fastbert
