// Muon's whole update of one matrix: momentum, Newton–Schulz iteration, decay, step, and the bfloat16 image of the
// weights.
//
//   M ← M + (1 − μ)(G − M)      X₀ = D / |D|, D = G + μ (M − G), lying down: R <= C
//   A = X Xᵀ, B = b A + c A², X ← a X + B X, a few times
//   W ← kept · W + step · X
//
// A matrix stays with one thread and in its second-level cache from the gradient to the weights. A and B are symmetric:
// what lies below the diagonal is copied, a third of the products is saved. Sums are in floats; X, A and B are bf16 in
// bf16's units where the machine has them and it is asked for, else floats.
//
// Reference: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
#pragma once
#include <cstddef>
#include <vector>

#include "cpu/bf16.h"
#include "cpu/isa.h"

namespace fastbert {

struct MuonPart {
  const float* grad;  // (rows, columns), as all of them
  float* weights;
  float* momentum;
  Bf16* image;  // or null
  size_t rows, columns;
  float step;  // negative learning rate · scale of this shape
};

struct MuonStep {
  float momentum;  // μ
  float kept;      // 1 − learning rate · weight decay
  float a, b, c;   // of the iteration
  int iterations;
};

struct MuonKernel {
  size_t (*scratch_bytes)(size_t rows, size_t columns);
  void (*update)(const MuonPart&, const MuonStep&, void* scratch);
};

struct MuonKernels {
  MuonKernel floats, bf16;  // what the iteration is in
};

extern const MuonKernels muon_scalar, muon_avx2, muon_avx512, muon_avx512_bf16, muon_amx_bf16, muon_neon,
    muon_neon_bf16;

// Every part, each by one thread.
void muon_update(const std::vector<MuonPart>& parts, const MuonStep& step, bool bf16, int threads);

}  // namespace fastbert
