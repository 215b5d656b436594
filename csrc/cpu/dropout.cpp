// The draws, the plain loop, and the choice among instruction sets.
#include "cpu/dropout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/philox.h"

#include "cpu/vec_scalar.h"
#include "cpu/dropout_loop.h"
FASTBERT_VEC_END

namespace fastbert {

const DropoutKernels dropout_scalar = kDropoutKernels;

const DropoutKernels& dropout_kernels(Isa isa) {
  switch (isa) {
#ifdef FASTBERT_X86
    case Isa::kAmxBf16:
    case Isa::kAvx512Bf16:
    case Isa::kAvx512: return dropout_avx512;
    case Isa::kAvx2: return dropout_avx2;
#endif
#ifdef FASTBERT_NEON
    case Isa::kNeonBf16:
    case Isa::kNeon: return dropout_neon;
#endif
    default: return dropout_scalar;
  }
}

uint32_t dropout_threshold(float probability) {
  if (!(probability > 0.0f)) return 0;
  const long nearest = std::lround(static_cast<double>(probability) * 65536.0);
  return static_cast<uint32_t>(std::min(std::max(nearest, 1L), 65535L));
}

void dropout_draws(uint64_t seed, uint32_t stream0, uint32_t stream1, size_t row, size_t rows, size_t width,
                   size_t begin, size_t size, uint16_t* out) {
  constexpr size_t kChunk = 64;  // blocks at a time: short rows share the wide registers
  uint32_t counters[kChunk], first[kChunk], second[kChunk], words[4 * kChunk];
  std::fill(first, first + kChunk, stream0);
  std::fill(second, second + kChunk, stream1);
  const size_t per_row = size / kDrawsPerBlock, total = rows * per_row;
  size_t i = 0, column = 0;  // of the next block
  for (size_t done = 0; done < total;) {
    const size_t count = std::min(kChunk, total - done);
    for (size_t k = 0; k < count; ++k) {
      counters[k] = static_cast<uint32_t>(((row + i) * width + begin) / kDrawsPerBlock + column);
      if (++column == per_row) column = 0, ++i;
    }
    philox_blocks(seed, counters, first, second, 0, count, words);
    std::memcpy(out + done * kDrawsPerBlock, words, count * kDrawsPerBlock * sizeof(uint16_t));
    done += count;
  }
}

}  // namespace fastbert
