#include "cpu/muon.h"

#ifdef FASTBERT_NEON_BF16
#include <cmath>
#include <limits>

#define FASTBERT_BF16_UNITS
#include "cpu/vec_neon.h"
#include "cpu/panels.h"
#include "cpu/muon_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const MuonKernels muon_neon_bf16{Muon<Floats>::kKernel, Muon<Pairs>::kKernel};
}
#endif
