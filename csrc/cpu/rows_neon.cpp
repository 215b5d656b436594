#include "cpu/rows.h"

#ifdef FASTBERT_NEON
#include "cpu/vec_neon.h"
#include "cpu/vec_math.h"
#include "cpu/rows_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const RowKernels row_kernels_neon = kRowKernels;
}
#endif
