#include "cpu/attention.h"

#ifdef FASTBERT_NEON_BF16
#include <cmath>
#include <limits>

#define FASTBERT_BF16_UNITS
#include "cpu/vec_neon.h"
#include "cpu/vec_math.h"
#include "cpu/panels.h"
#include "cpu/attention_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const AttentionKernels attention_neon_bf16{Attention<Floats, float>::kKernel, Attention<Pairs, Bf16>::kKernel};
}
#endif
