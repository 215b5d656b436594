#include "cpu/embed.h"

#ifdef FASTBERT_X86
#include "cpu/vec_avx512.h"
#include "cpu/embed_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const EmbedKernels embed_kernels_avx512 = kEmbedKernels;
}
#endif
