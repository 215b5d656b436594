#include "cpu/attention.h"

#ifdef FASTBERT_X86
#include <cmath>
#include <limits>

#include "cpu/vec_avx2.h"
#include "cpu/vec_math.h"
#include "cpu/panels.h"
#include "cpu/attention_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const AttentionKernels attention_avx2{Attention<Floats, float>::kKernel, Attention<Floats, Bf16>::kKernel};
}
#endif
