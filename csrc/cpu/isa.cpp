#include "cpu/isa.h"

#include <atomic>
#include <stdexcept>

namespace fastbert {

std::vector<Isa> available_isas() {
  std::vector<Isa> isas{Isa::kScalar};
#ifdef FASTBERT_X86
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return isas;
  isas.push_back(Isa::kAvx2);
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")))
    return isas;
  isas.push_back(Isa::kAvx512);
  if (__builtin_cpu_supports("avx512bf16")) isas.push_back(Isa::kAvx512Bf16);
#endif
  return isas;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kScalar: break;
  }
  return "scalar";
}

static std::atomic<Isa>& the_isa() {
  static std::atomic<Isa> isa{available_isas().back()};
  return isa;
}

Isa current_isa() { return the_isa().load(std::memory_order_relaxed); }

void set_current_isa(const std::string& name) {
  std::string known;
  for (const Isa isa : available_isas()) {
    if (name == isa_name(isa)) return the_isa().store(isa);
    known += std::string(known.empty() ? "" : ", ") + isa_name(isa);
  }
  if (name != "auto") throw std::invalid_argument("isa='" + name + "': expected auto or what this machine runs: " + known);
  the_isa().store(available_isas().back());
}

}  // namespace fastbert
