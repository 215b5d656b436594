#include "cpu/muon.h"

#ifdef FASTBERT_NEON
#include <cmath>
#include <limits>

#include "cpu/vec_neon.h"
#include "cpu/panels.h"
#include "cpu/muon_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const MuonKernels muon_neon{Muon<Floats>::kKernel, Muon<Floats>::kKernel};
}
#endif
