#include "cpu/rows.h"

#ifdef FASTBERT_X86
#include "cpu/vec_avx512.h"
#include "cpu/vec_math.h"
#include "cpu/rows_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const RowKernels row_kernels_avx512 = kRowKernels;
}
#endif
