#include "cpu/loss.h"

#ifdef FASTBERT_X86
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"
#include "cpu/loss_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const LossKernels loss_avx512 = kLossKernels;
}
#endif
