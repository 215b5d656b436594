#include "cpu/linear.h"

#ifdef FASTBERT_X86
#include <cstdint>
#include <cstdlib>
#include <new>

#define FASTBERT_BF16_UNITS
#include "cpu/vec_avx512.h"
#include "cpu/panels.h"
#include "cpu/linear_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const LinearKernels linear_kernels_avx512_bf16{
    LinearTasks<Floats, float>::kKernel, LinearTasks<Pairs, Bf16>::kKernel, {}, {}};
}
#endif
