#include "cpu/attention.h"

#ifdef FASTBERT_AMX
#include <cmath>
#include <limits>

#define FASTBERT_BF16_UNITS
#define FASTBERT_TILES
#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"
#include "cpu/panels.h"
#include "cpu/tiles.h"
#include "cpu/attention_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const AttentionKernels attention_amx_bf16{Attention<Floats, float>::kKernel, Attention<Tiles, Bf16>::kKernel};
}
#endif
