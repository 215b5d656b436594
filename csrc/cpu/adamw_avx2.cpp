#include "cpu/adamw.h"

#ifdef FASTBERT_X86
#include "cpu/vec_avx2.h"
#include "cpu/adamw_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const AdamwKernels adamw_kernels_avx2 = kAdamwKernels;
}
#endif
