// The plain loops, and the choice among instruction sets.
#include "cpu/adamw.h"

#include "cpu/vec_scalar.h"
#include "cpu/adamw_loop.h"
FASTBERT_VEC_END

namespace fastbert {

const AdamwKernels adamw_kernels_scalar = kAdamwKernels;

const AdamwKernels& adamw_kernels(Isa isa) {
  switch (isa) {
#ifdef FASTBERT_X86
    case Isa::kAmxBf16:
    case Isa::kAvx512Bf16:
    case Isa::kAvx512: return adamw_kernels_avx512;
    case Isa::kAvx2: return adamw_kernels_avx2;
#endif
#ifdef FASTBERT_NEON
    case Isa::kNeonBf16:
    case Isa::kNeon: return adamw_kernels_neon;
#endif
    default: return adamw_kernels_scalar;
  }
}

}  // namespace fastbert
