// One value in, one value out: conversions, and e^x for the tests.
#pragma once
#include <cstddef>

#include "cpu/bf16.h"
#include "cpu/isa.h"

namespace fastbert {

struct Elementwise {
  void (*to_bf16)(const float* x, Bf16* out, size_t count);  // rounds to nearest, ties to even
  void (*to_float)(const Bf16* x, float* out, size_t count);
  void (*exp)(const float* x, float* out, size_t count);  // see vec_math.h
};

// The functions for an instruction set, by default the current one.
const Elementwise& elementwise(Isa isa = current_isa());

extern const Elementwise elementwise_scalar, elementwise_avx2, elementwise_avx512, elementwise_neon;

}  // namespace fastbert
