#include "cpu/embed.h"

#ifdef FASTBERT_X86
#include "cpu/vec_avx2.h"
#include "cpu/embed_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const EmbedKernels embed_kernels_avx2 = kEmbedKernels;
}
#endif
