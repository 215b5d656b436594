// y (rows, out) = x (rows, in) · Wᵀ + bias for inference, W copied once into the order in which the product reads it.
//
// With few rows a product is the reading of its weights: they are read once, from the first to the last, what comes
// next being fetched while a part is used for every row.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/isa.h"

namespace fastbert {

struct Linear {
  size_t rows, in, out;
  const void* x;                                    // (rows, in): float or bf16, or digits
  const void* packed;                               // what `pack` wrote
  const float* bias;                                // (out rounded up to kLinearLanes) or null
  void* y;                                          // (rows, out), of x's type; with digits float or bf16; not x
  const float *scale = nullptr, *lowest = nullptr;  // (rows, digit_blocks(in)) of the digits
};

constexpr size_t kLinearLanes = 16;  // `bias` is read in whole registers

// Digits: in a block of in's columns, x ≈ scale · d + lowest with whole d from 0, one scale for each row; and
// w ≈ scale · d with whole d of either sign, one scale for each column of y. The sums of their products are exact.
constexpr size_t kDigitBlock = 128, kDigitAlign = 4;  // `in` is a multiple of kDigitAlign
inline size_t digit_blocks(size_t in) { return (in + kDigitBlock - 1) / kDigitBlock; }

struct Digits {  // rows as digits
  size_t in;
  const void* x;          // (rows, in): float or bf16
  const int32_t* order;   // (in) or null: digit k is that of column order[k] of x
  const float* factor;    // (in) or null: times factor[k]; not null with an order
  void* digits;           // (rows, in)
  float *scale, *lowest;  // (rows, digit_blocks(in))
};

// One instruction set's code for one element type; null functions: none.
struct LinearKernel {
  size_t (*packed_bytes)(size_t in, size_t out) = nullptr;
  void (*pack)(const void* weight, size_t in, size_t out, void* packed) = nullptr;  // weight (out, in); digits: float
  size_t (*num_tasks)(const Linear& of) = nullptr;
  void (*run)(const Linear& of, size_t task) = nullptr;                  // tasks write different elements of y
  void (*digits)(const Digits& of, size_t begin, size_t end) = nullptr;  // rows [begin, end); null: x as it is
  size_t digit_bytes = 0;
};
// int8: 8 bits each (x of y's type float or bf16); int16: 12 bits each, x float. On every instruction set the same
// bits.
struct LinearKernels {
  LinearKernel floats, bf16, int8, int8_bf16, int16;
};
const LinearKernels& linear_kernels(Isa isa = current_isa());
extern const LinearKernels linear_kernels_scalar, linear_kernels_avx2, linear_kernels_avx512,
    linear_kernels_avx512_bf16, linear_kernels_vnni;

}  // namespace fastbert
