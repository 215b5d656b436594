// The plain loops, and the choice among instruction sets.
#include "cpu/elementwise.h"

#include "cpu/vec_scalar.h"
#include "cpu/vec_math.h"
#include "cpu/elementwise_loop.h"
FASTBERT_VEC_END

namespace fastbert {

const Elementwise elementwise_scalar = kElementwise;

const Elementwise& elementwise(Isa isa) {
  switch (isa) {
#ifdef FASTBERT_X86
    case Isa::kAmxBf16:
    case Isa::kAvx512Bf16:
    case Isa::kAvx512: return elementwise_avx512;
    case Isa::kAvx2: return elementwise_avx2;
#endif
#ifdef FASTBERT_NEON
    case Isa::kNeonBf16:
    case Isa::kNeon: return elementwise_neon;
#endif
    default: return elementwise_scalar;
  }
}

}  // namespace fastbert
