// y (rows, out) = x (rows, in) · Wᵀ + bias for inference, W copied once into the order in which the product reads it.
//
// With few rows a product is the reading of its weights: they are read once, from the first to the last, what comes
// next being fetched while a part is used for every row.
#pragma once
#include <cstddef>

#include "cpu/isa.h"

namespace fastbert {

struct Linear {
  size_t rows, in, out;
  const void* x;       // (rows, in): float or bf16
  const void* packed;  // what `pack` wrote
  const float* bias;   // (out rounded up to kLinearLanes) or null
  void* y;             // (rows, out), of x's type; not x
};

constexpr size_t kLinearLanes = 16;  // `bias` is read in whole registers

// One instruction set's code for one element type; null functions: none.
struct LinearKernel {
  size_t (*packed_bytes)(size_t in, size_t out) = nullptr;
  void (*pack)(const void* weight, size_t in, size_t out, void* packed) = nullptr;  // weight (out, in)
  size_t (*num_tasks)(const Linear& of) = nullptr;
  void (*run)(const Linear& of, size_t task) = nullptr;  // tasks write different elements of y
};
struct LinearKernels {
  LinearKernel floats, bf16;
};
const LinearKernels& linear_kernels(Isa isa = current_isa());
extern const LinearKernels linear_kernels_avx2, linear_kernels_avx512, linear_kernels_avx512_bf16;

}  // namespace fastbert
