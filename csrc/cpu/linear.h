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
  const void* x;                                    // (rows, in): float or bf16, or quantized
  const void* packed;                               // what `pack` wrote
  const float* bias;                                // (out rounded up to kLinearLanes) or null
  void* y;                                          // (rows, out), of x's type; quantized: float or bf16; not x
  const float *scale = nullptr, *lowest = nullptr;  // (rows, quant_blocks(in)) of quantized rows
};

constexpr size_t kLinearLanes = 16;  // `bias` is read in whole registers

// int8: in a block of in's columns, x ≈ scale · d + lowest with whole d from 0, one scale for each row; and
// w ≈ scale · d with whole d of either sign, one scale for each column of y. The sums of their products are exact.
constexpr size_t kQuantBlock = 128, kQuantAlign = 4;  // `in` is a multiple of kQuantAlign
inline size_t quant_blocks(size_t in) { return (in + kQuantBlock - 1) / kQuantBlock; }

struct QuantizeRows {  // a product's rows as whole numbers
  size_t in;
  const void* x;          // (rows, in): float or bf16
  const int32_t* order;   // (in) or null: value k is that of column order[k] of x
  const float* factor;    // (in) or null: times factor[k]; not null with an order
  void* quantized;        // (rows, in)
  float *scale, *lowest;  // (rows, quant_blocks(in))
};

// One instruction set's code for one element type; null functions: none.
struct LinearKernel {
  size_t (*packed_bytes)(size_t in, size_t out) = nullptr;
  void (*pack)(const void* weight, size_t in, size_t out, void* packed) = nullptr;  // weight (out, in); int8: float
  size_t (*num_tasks)(const Linear& of) = nullptr;
  void (*run)(const Linear& of, size_t task) = nullptr;                          // tasks write different elements of y
  void (*quantize)(const QuantizeRows& of, size_t begin, size_t end) = nullptr;  // rows [begin, end); null: x as it is
};
// int8: x of y's type, float or bf16. On every instruction set the same bits.
struct LinearKernels {
  LinearKernel floats, bf16, int8, int8_bf16;
};
const LinearKernels& linear_kernels(Isa isa = current_isa());
extern const LinearKernels linear_kernels_avx2, linear_kernels_avx512, linear_kernels_avx512_bf16, linear_kernels_vnni;

}  // namespace fastbert
