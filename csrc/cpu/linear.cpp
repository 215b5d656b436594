// The choice among instruction sets.
#include "cpu/linear.h"

namespace fastbert {

// Without AVX2, and for bf16 with AMX, there is none: oneDNN's products are taken.
static constexpr LinearKernels kNone;

const LinearKernels& linear_kernels(Isa isa) {
  switch (isa) {
#ifdef FASTBERT_X86
    case Isa::kAmxBf16:
    case Isa::kAvx512: return linear_kernels_avx512;
    case Isa::kAvx512Bf16: return linear_kernels_avx512_bf16;
    case Isa::kAvx2: return linear_kernels_avx2;
#endif
    default: return kNone;
  }
}

}  // namespace fastbert
