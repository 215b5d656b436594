#include "cpu/loss.h"

#ifdef FASTBERT_NEON
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/vec_neon.h"
#include "cpu/vec_math.h"
#include "cpu/loss_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const LossKernels loss_neon = kLossKernels;
}
#endif
