// One pass of AdamW over a stretch of parameters: moments, decoupled decay, update, and the bfloat16 image of the
// weights.
//
// Reference: Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019.
#pragma once
#include <cstddef>

#include "cpu/bf16.h"
#include "cpu/isa.h"

namespace fastbert {

struct AdamwStep {
  float grad_scale;  // of clipping: multiplies every gradient
  float kept;        // 1 − learning rate · weight decay: multiplies the weights
  float beta1, beta2;
  float step_size;  // learning rate / (1 − β1^t)
  float second;     // 1 / sqrt(1 − β2^t)
  float eps;
};

struct AdamwKernels {
  // image may be null. All hold count elements.
  void (*step_bf16)(const AdamwStep&, const Bf16* grad, float* weights, float* mean, float* square, Bf16* image,
                    size_t count);
  void (*step_f32)(const AdamwStep&, const float* grad, float* weights, float* mean, float* square, Bf16* image,
                   size_t count);
  float (*sum_of_squares_bf16)(const Bf16* x, size_t count);
  float (*sum_of_squares_f32)(const float* x, size_t count);
};

const AdamwKernels& adamw_kernels(Isa isa = current_isa());
extern const AdamwKernels adamw_kernels_scalar, adamw_kernels_avx2, adamw_kernels_avx512, adamw_kernels_neon;

}  // namespace fastbert
