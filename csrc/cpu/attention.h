// Bidirectional multi-head attention over sequences of any length, forward and backward, without copies of q, k or v.
//
//   out_i = Σ_j p_ij v_j,   p_ij = e^(scale · q_i·k_j − lse_i),   lse_i = log Σ_j e^(scale · q_i·k_j)
//   dv_j = Σ_i p_ij do_i,   ds_ij = p_ij (do_i·v_j − Σ_j p_ij do_i·v_j),   dq_i = scale Σ_j ds_ij k_j,   dk_j likewise
//
// A task is one (sequence, head). It computes scores for a block of rows at a time, all keys of the row at once, so
// that softmax needs one exponential for each score; the block stays in the near caches. Products of bf16 are summed in
// float. Reference: Vaswani et al., Attention Is All You Need, 2017; Dao et al., FlashAttention, 2022 (recomputing p
// from lse).
#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/bf16.h"
#include "cpu/dropout.h"
#include "cpu/isa.h"

namespace fastbert {

// (tokens, heads, head_dim) in memory; strides in elements, head_dim lies contiguous.
struct Heads {
  void* data = nullptr;
  int64_t token_stride = 0, head_stride = 0;
};

// Rows start .. start + rows, of which the first `keys` are seen.
struct AttentionSequence {
  size_t start, rows, keys;
};

struct AttentionArgs {
  Heads q, k, v, out;       // all of one element type
  Heads d_out, dq, dk, dv;  // backward only (out is not needed there)
  float* lse = nullptr;     // (heads, tokens): written forward, read backward
  // Rotary angles of each token, (tokens, head_dim / 2) floats, or null: q and k are turned before use, dq and dk back.
  const float *cos = nullptr, *sin = nullptr;
  // They do not overlap. A row that sees nothing gives zeros, and lse 0; dk and dv of rows that nobody sees are zeros.
  const AttentionSequence* sequences = nullptr;
  size_t num_sequences = 0, num_heads = 0, num_tokens = 0;
  size_t head_dim = 0;  // a multiple of 16, at most 128
  int64_t window = -1;  // w: a row sees |i − j| <= w; -1: all
  float scale = 1.0f;
  Dropout dropout;  // of the weights p: those of one draw are the same forward and backward
};

constexpr size_t kMaxHeadDim = 128;

// One instruction set's code for one element type. A task is (sequence, head).
struct AttentionKernel {
  // Bytes of 64-byte aligned scratch that the tasks of a sequence need.
  size_t (*forward_bytes)(const AttentionArgs& args, size_t sequence);
  size_t (*backward_bytes)(const AttentionArgs& args, size_t sequence);
  void (*forward)(const AttentionArgs& args, size_t sequence, size_t head, void* scratch);
  void (*backward)(const AttentionArgs& args, size_t sequence, size_t head, void* scratch);
};
struct AttentionKernels {
  AttentionKernel floats, bf16;
};
extern const AttentionKernels attention_scalar, attention_avx2, attention_avx512, attention_avx512_bf16,
    attention_amx_bf16, attention_neon, attention_neon_bf16;

void attention_forward(const AttentionArgs& args, bool bf16, int threads);
void attention_backward(const AttentionArgs& args, bool bf16, int threads);

}  // namespace fastbert
