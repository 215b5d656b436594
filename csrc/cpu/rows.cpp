// The plain loops, and the choice among instruction sets.
#include "cpu/rows.h"

#include <cstring>

#include "cpu/vec_scalar.h"
#include "cpu/vec_math.h"
#include "cpu/rows_loop.h"
FASTBERT_VEC_END

namespace fastbert {

const RowKernels row_kernels_scalar = kRowKernels;

const RowKernels& row_kernels(Isa isa) {
  switch (isa) {
#ifdef FASTBERT_X86
    case Isa::kAmxBf16:
    case Isa::kAvx512Bf16:
    case Isa::kAvx512: return row_kernels_avx512;
    case Isa::kAvx2: return row_kernels_avx2;
#endif
#ifdef FASTBERT_NEON
    case Isa::kNeonBf16:
    case Isa::kNeon: return row_kernels_neon;
#endif
    default: return row_kernels_scalar;
  }
}

}  // namespace fastbert
