// The plain loops, the choice among instruction sets, and the splitting of the work.
#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/scratch.h"
#include "cpu/team.h"

#include "cpu/vec_scalar.h"
#include "cpu/vec_math.h"
#include "cpu/panels.h"
#include "cpu/attention_loop.h"
FASTBERT_VEC_END

namespace fastbert {

const AttentionKernels attention_scalar{Attention<Floats, float>::kKernel, Attention<Floats, Bf16>::kKernel};

static const AttentionKernel& kernel_for(bool bf16) {
  const auto all = []() -> const AttentionKernels& {
    switch (current_isa()) {
#ifdef FASTBERT_X86
#ifdef FASTBERT_AMX
      case Isa::kAmxBf16: return attention_amx_bf16;
#endif
      case Isa::kAvx512Bf16: return attention_avx512_bf16;
      case Isa::kAvx512: return attention_avx512;
      case Isa::kAvx2: return attention_avx2;
#endif
#ifdef FASTBERT_NEON_BF16
      case Isa::kNeonBf16: return attention_neon_bf16;
#endif
#ifdef FASTBERT_NEON
      case Isa::kNeon: return attention_neon;
#endif
      default: return attention_scalar;
    }
  };
  return bf16 ? all().bf16 : all().floats;
}

using TaskBytes = size_t (*)(const AttentionArgs& args, size_t sequence);
using RunTask = void (*)(const AttentionArgs& args, size_t sequence, size_t head, void* scratch);

// Every (sequence, head), the longest sequences first, so that no thread begins a long one when the others are done.
static void run_tasks(const AttentionArgs& args, int threads, TaskBytes task_bytes, RunTask run) {
  std::vector<size_t> order(args.num_sequences);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return args.sequences[a].rows > args.sequences[b].rows; });
  size_t bytes = 0;
  for (size_t b = 0; b < args.num_sequences; ++b) bytes = std::max(bytes, task_bytes(args, b));
  team_for(args.num_sequences * args.num_heads, threads, [&](size_t task, int) {
    run(args, order[task / args.num_heads], task % args.num_heads, thread_scratch(bytes));
  });
}

void attention_forward(const AttentionArgs& args, bool bf16, int threads) {
  run_tasks(args, threads, kernel_for(bf16).forward_bytes, kernel_for(bf16).forward);
}

void attention_backward(const AttentionArgs& args, bool bf16, int threads) {
  run_tasks(args, threads, kernel_for(bf16).backward_bytes, kernel_for(bf16).backward);
}

}  // namespace fastbert
