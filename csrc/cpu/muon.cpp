// The plain loops, the choice among instruction sets, and the splitting of the work.
#include "cpu/muon.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "cpu/scratch.h"
#include "cpu/team.h"

#include "cpu/vec_scalar.h"
#include "cpu/panels.h"
#include "cpu/muon_loop.h"
FASTBERT_VEC_END

namespace fastbert {

const MuonKernels muon_scalar{Muon<Floats>::kKernel, Muon<Floats>::kKernel};

static const MuonKernel& kernel_for(bool bf16) {
  const auto all = []() -> const MuonKernels& {
    switch (current_isa()) {
#ifdef FASTBERT_X86
#ifdef FASTBERT_AMX
      case Isa::kAmxBf16: return muon_amx_bf16;
#endif
      case Isa::kAvx512Bf16: return muon_avx512_bf16;
      case Isa::kAvx512: return muon_avx512;
      case Isa::kAvx2: return muon_avx2;
#endif
#ifdef FASTBERT_NEON_BF16
      case Isa::kNeonBf16: return muon_neon_bf16;
#endif
#ifdef FASTBERT_NEON
      case Isa::kNeon: return muon_neon;
#endif
      default: return muon_scalar;
    }
  };
  return bf16 ? all().bf16 : all().floats;
}

static double work_of(const MuonPart& part) {
  const auto [low, high] = std::minmax(part.rows, part.columns);
  return static_cast<double>(low) * static_cast<double>(low) * static_cast<double>(high);
}

void muon_update(const std::vector<MuonPart>& parts, const MuonStep& step, bool bf16, int threads) {
  const MuonKernel& kernel = kernel_for(bf16);
  // the largest first, so that no thread begins one when the others are done
  std::vector<size_t> order(parts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return work_of(parts[a]) > work_of(parts[b]); });
  size_t bytes = 0;
  for (const MuonPart& part : parts) bytes = std::max(bytes, kernel.scratch_bytes(part.rows, part.columns));
  team_for(parts.size(), threads, [&](size_t i, int) { kernel.update(parts[order[i]], step, thread_scratch(bytes)); });
}

}  // namespace fastbert
