#include "cpu/adamw.h"

#ifdef FASTBERT_NEON
#include "cpu/vec_neon.h"
#include "cpu/adamw_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const AdamwKernels adamw_kernels_neon = kAdamwKernels;
}
#endif
