#include "cpu/attention.h"

#ifdef FASTBERT_NEON
#include <cmath>
#include <limits>

#include "cpu/vec_neon.h"
#include "cpu/vec_math.h"
#include "cpu/panels.h"
#include "cpu/attention_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const AttentionKernels attention_neon{Attention<Floats, float>::kKernel, Attention<Floats, Bf16>::kKernel};
}
#endif
