#include "cpu/dropout.h"

#ifdef FASTBERT_NEON
#include "cpu/vec_neon.h"
#include "cpu/dropout_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const DropoutKernels dropout_neon = kDropoutKernels;
}
#endif
