// Cross-entropy of rows of logits, and its gradient in their place, in one visit of each row.
//
//   loss_i = log Σ_j e^(x_ij + b_j) − x_iy − b_y        gradient_ij = factor_i (softmax_j − [j = y])
//
// Columns from vocab_size on are padding: they take no part and their gradient is 0, as is that of a row without a
// label.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/bf16.h"
#include "cpu/isa.h"

namespace fastbert {

constexpr int64_t kNoLabel = -100;

struct LossArgs {
  void* logits = nullptr;           // (rows, columns); overwritten by the gradient where one is wanted
  const float* bias = nullptr;      // (vocab_size,), or null
  const int64_t* labels = nullptr;  // (rows,): below vocab_size, or kNoLabel
  const float* weights = nullptr;   // (rows,) of the losses, or null: all 1
  float* losses = nullptr;          // (rows,), weighted; 0 without a label
  size_t rows = 0, columns = 0, vocab_size = 0;
  float factor = 1.0f;  // of the gradient, beside the row's weight
  bool gradient = false;
};

struct LossKernels {
  void (*floats)(const LossArgs& args, size_t row);
  void (*bf16)(const LossArgs& args, size_t row);
};
extern const LossKernels loss_scalar, loss_avx2, loss_avx512, loss_neon;

void cross_entropy(const LossArgs& args, bool bf16, int threads);

}  // namespace fastbert
