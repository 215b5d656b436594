// What happens to rows between the matrix products: LayerNorm with its residual, GELU and GeGLU with their bias, sums
// over rows. Computing is in float; E is float or Bf16. Sums over rows come out in parts that the caller adds in order.
#pragma once
#include <cstddef>

#include "cpu/bf16.h"
#include "cpu/isa.h"

namespace fastbert {

// total = residual + x + x_bias;  out = (total − mean) · rstd · weight + bias, each row over its width.
template <class E>
struct LayerNormForward {
  size_t width;
  const E* x;           // (rows, width)
  const float* x_bias;  // (width) or null
  const E* residual;    // (rows, width) or null
  const float* weight;  // (width)
  const float* bias;    // (width) or null
  float eps;
  E* total;     // (rows, width) or null
  E* out;       // (rows, width)
  float* mean;  // (rows) or null
  float* rstd;  // (rows) or null
};

// grad_total = gradient through the normalisation, plus grad_sum where the sum was handed on.
template <class E>
struct LayerNormBackward {
  size_t width;
  const E* grad_out;    // (rows, width)
  const E* grad_sum;    // (rows, width) or null
  const E* total;       // (rows, width)
  const float* mean;    // (rows)
  const float* rstd;    // (rows)
  const float* weight;  // (width)
  E* grad_total;        // (rows, width)
};

// out = gelu(x + bias), or with gated gelu(gate + …) · (value + …) for x = [gate | value]. width is out's.
template <class E>
struct GeluForward {
  size_t width;
  bool gated, tanh;
  const E* x;         // (rows, width) or (rows, 2 · width)
  const float* bias;  // as wide as x, or null
  E* out;             // (rows, width)
};

template <class E>
struct GeluBackward {
  size_t width;
  bool gated, tanh;
  const E* grad_out;  // (rows, width)
  const E* x;
  const float* bias;
  E* grad_x;  // as wide as x
};

struct RowKernels {
  // scratch holds `width` floats. Rows [begin, end).
  void (*norm_forward_bf16)(const LayerNormForward<Bf16>&, size_t begin, size_t end, float* scratch);
  void (*norm_forward_f32)(const LayerNormForward<float>&, size_t begin, size_t end, float* scratch);
  // sums (3, width), written: over the rows, of grad_weight, grad_bias and grad_total.
  void (*norm_backward_bf16)(const LayerNormBackward<Bf16>&, size_t begin, size_t end, float* sums);
  void (*norm_backward_f32)(const LayerNormBackward<float>&, size_t begin, size_t end, float* sums);
  void (*gelu_forward_bf16)(const GeluForward<Bf16>&, size_t begin, size_t end);
  void (*gelu_forward_f32)(const GeluForward<float>&, size_t begin, size_t end);
  // sums (width of x), written: over the rows, of grad_x.
  void (*gelu_backward_bf16)(const GeluBackward<Bf16>&, size_t begin, size_t end, float* sums);
  void (*gelu_backward_f32)(const GeluBackward<float>&, size_t begin, size_t end, float* sums);
  // sums (width), written: over rows [begin, end) of x.
  void (*sum_rows_bf16)(const Bf16* x, size_t width, size_t begin, size_t end, float* sums);
  void (*sum_rows_f32)(const float* x, size_t width, size_t begin, size_t end, float* sums);
};

const RowKernels& row_kernels(Isa isa = current_isa());
extern const RowKernels row_kernels_scalar, row_kernels_avx2, row_kernels_avx512, row_kernels_neon;

}  // namespace fastbert
