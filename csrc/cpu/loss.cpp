// The plain loop, the choice among instruction sets, and the splitting of the work.
#include "cpu/loss.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/team.h"

#include "cpu/vec_scalar.h"
#include "cpu/vec_math.h"
#include "cpu/loss_loop.h"
FASTBERT_VEC_END

namespace fastbert {

const LossKernels loss_scalar = kLossKernels;

static const LossKernels& kernels() {
  switch (current_isa()) {
#ifdef FASTBERT_X86
    case Isa::kAmxBf16:
    case Isa::kAvx512Bf16:
    case Isa::kAvx512: return loss_avx512;
    case Isa::kAvx2: return loss_avx2;
#endif
#ifdef FASTBERT_NEON
    case Isa::kNeonBf16:
    case Isa::kNeon: return loss_neon;
#endif
    default: return loss_scalar;
  }
}

constexpr size_t kRowsOfTask = 8;

void cross_entropy(const LossArgs& args, bool bf16, int threads) {
  const auto row = bf16 ? kernels().bf16 : kernels().floats;
  team_for((args.rows + kRowsOfTask - 1) / kRowsOfTask, threads, [&](size_t task, int) {
    const size_t end = std::min(args.rows, (task + 1) * kRowsOfTask);
    for (size_t i = task * kRowsOfTask; i < end; ++i) row(args, i);
  });
}

}  // namespace fastbert
