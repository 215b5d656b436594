#include "cpu/dropout.h"

#ifdef FASTBERT_X86
#include "cpu/vec_avx2.h"
#include "cpu/dropout_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const DropoutKernels dropout_avx2 = kDropoutKernels;
}
#endif
