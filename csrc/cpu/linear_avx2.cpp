#include "cpu/linear.h"

#ifdef FASTBERT_X86
#include <cstdint>
#include <cstdlib>
#include <new>

#include "cpu/vec_avx2.h"
#include "cpu/panels.h"
#include "cpu/linear_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const LinearKernels linear_kernels_avx2{LinearTasks<Floats, float>::kKernel, {}, {}, {}};
}
#endif
