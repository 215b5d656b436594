#include "cpu/elementwise.h"

#ifdef FASTBERT_X86
#include "cpu/vec_avx2.h"
#include "cpu/vec_math.h"
#include "cpu/elementwise_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const Elementwise elementwise_avx2 = kElementwise;
}
#endif
