#include "cpu/muon.h"

#ifdef FASTBERT_X86
#include <cmath>
#include <limits>

#define FASTBERT_BF16_UNITS
#include "cpu/vec_avx512.h"
#include "cpu/panels.h"
#include "cpu/muon_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const MuonKernels muon_avx512_bf16{Muon<Floats>::kKernel, Muon<Pairs>::kKernel};
}
#endif
