#include "cpu/embed.h"

#ifdef FASTBERT_NEON
#include "cpu/vec_neon.h"
#include "cpu/embed_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const EmbedKernels embed_kernels_neon = kEmbedKernels;
}
#endif
