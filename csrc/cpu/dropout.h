// Dropout by counter: whether an element is dropped is a pure function of (seed, stream, row, column). The backward
// draws again what the forward drew, so no mask is kept, and no result depends on blocks or threads. Reference:
// Srivastava et al., Dropout, 2014; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/bf16.h"
#include "cpu/isa.h"

namespace fastbert {

// An element whose 16-bit draw lies below the threshold is dropped; threshold 0: nothing is.
struct Dropout {
  uint64_t seed = 0;
  uint32_t threshold = 0;
  float inverse_keep() const { return 65536.0f / static_cast<float>(65536 - threshold); }
};

// The threshold of a probability in [0, 1): nearest, but never "nothing" or "everything" for one in between.
uint32_t dropout_threshold(float probability);

constexpr size_t kDrawsPerBlock = 8;  // of Philox: four words of 32 bits

// Columns [begin, begin + size) of rows [row, row + rows) of a matrix of `width` columns, all but `row` and `rows`
// multiples of kDrawsPerBlock, into out (rows, size). Streams are matrices of one seed.
void dropout_draws(uint64_t seed, uint32_t stream0, uint32_t stream1, size_t row, size_t rows, size_t width,
                   size_t begin, size_t size, uint16_t* out);

// out = (x + bias) / keep where kept, else 0.
template <class E>
struct DropoutRows {
  size_t width;
  const E* x;         // (rows, width)
  const float* bias;  // (width) or null
  E* out;             // (rows, width), may be x
  Dropout dropout;
};

struct DropoutKernels {
  void (*rows_bf16)(const DropoutRows<Bf16>&, size_t begin, size_t end);  // rows [begin, end)
  void (*rows_f32)(const DropoutRows<float>&, size_t begin, size_t end);
};

const DropoutKernels& dropout_kernels(Isa isa = current_isa());
extern const DropoutKernels dropout_scalar, dropout_avx2, dropout_avx512, dropout_neon;

}  // namespace fastbert
