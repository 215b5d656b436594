#include "cpu/elementwise.h"

#ifdef FASTBERT_NEON
#include "cpu/vec_neon.h"
#include "cpu/vec_math.h"
#include "cpu/elementwise_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const Elementwise elementwise_neon = kElementwise;
}
#endif
