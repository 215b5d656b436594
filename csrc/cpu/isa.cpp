#include "cpu/isa.h"

#include <atomic>
#include <stdexcept>

#ifdef FASTBERT_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef FASTBERT_NEON_BF16
#include <sys/auxv.h>
#endif

namespace fastbert {

#ifdef FASTBERT_AMX
// The processor has AMX with bf16, and Linux lets this process use it (tiles are large: every process has to ask).
static bool may_use_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAmxBf16Bit = 1u << 22, kAmxTileBit = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kAmxBf16Bit) || !(d & kAmxTileBit)) return false;
  constexpr long kAskForPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kAskForPermission, kTileData) == 0;
}
#endif

std::vector<Isa> available_isas() {
  std::vector<Isa> isas{Isa::kScalar};
#ifdef FASTBERT_X86
  __builtin_cpu_init();
  if (!simd_allowed(SimdLevel::kAvx2)) return isas;
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return isas;
  isas.push_back(Isa::kAvx2);
  if (!simd_allowed(SimdLevel::kAvx512)) return isas;
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")))
    return isas;
  isas.push_back(Isa::kAvx512);
  if (!__builtin_cpu_supports("avx512bf16")) return isas;
  isas.push_back(Isa::kAvx512Bf16);
#ifdef FASTBERT_AMX
  if (may_use_amx()) isas.push_back(Isa::kAmxBf16);
#endif
#endif
#ifdef FASTBERT_NEON
  if (!simd_allowed(SimdLevel::kNeon)) return isas;
  isas.push_back(Isa::kNeon);
#endif
#ifdef FASTBERT_NEON_BF16
  constexpr unsigned long kBf16Bit = 1ul << 14;  // HWCAP2_BF16
  if (getauxval(AT_HWCAP2) & kBf16Bit) isas.push_back(Isa::kNeonBf16);
#endif
  return isas;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAmxBf16: return "amx_bf16";
    case Isa::kNeon: return "neon";
    case Isa::kNeonBf16: return "neon_bf16";
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
  if (name != "auto")
    throw std::invalid_argument("isa='" + name + "': expected auto or what this machine runs: " + known);
  the_isa().store(available_isas().back());
}

}  // namespace fastbert
