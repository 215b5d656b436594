#include "cpu/muon.h"

#ifdef FASTBERT_AMX
#include <cmath>
#include <limits>

#define FASTBERT_BF16_UNITS
#define FASTBERT_TILES
#include "cpu/vec_avx512.h"
#include "cpu/panels.h"
#include "cpu/tiles.h"
#include "cpu/muon_loop.h"
FASTBERT_VEC_END

namespace fastbert {
const MuonKernels muon_amx_bf16{Muon<Floats>::kKernel, Muon<Tiles>::kKernel};
}
#endif
