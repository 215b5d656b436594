// A whole encoder for inference, from embedded rows to hidden states in one call, on weights packed for linear.h.
//
//    post: x = LayerNorm(x + attention(x)),  x = LayerNorm(x + W₂ act(W₁ x))
//    pre:  x = x + attention(LayerNorm(x)),  x = x + W₂ act(W₁ LayerNorm(x)), and a LayerNorm at the end
//
// Legend: T tokens, D width. Hidden states are float or bf16, all vectors of parameters float.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "cpu/attention.h"
#include "cpu/linear.h"

namespace fastbert {

struct MatrixOf {      // what a layer is made from: copied
  const void* weight;  // (out, in), in the hidden states' type
  size_t out, in;
  const float* bias;  // (out) or null
};
struct NormOf {
  const float *weight, *bias;  // (D); bias may be null
};
struct LayerOf {
  MatrixOf qkv, attention_out, up, down;  // up: (down.in, D), gated twice as many rows
  const NormOf* attention_norm;           // null: pre-norm, and the embeddings have normalised already
  NormOf feed_forward_norm;
  int64_t window;
  bool gated, tanh;
};

struct FreeAligned {
  std::align_val_t alignment{64};
  void operator()(char* memory) const { ::operator delete(memory, alignment); }
};

class Encoder {
 public:
  // `last`: the norm behind a pre-norm encoder; null: post-norm. Throws std::invalid_argument where this machine has no
  // product for the type (see linear.h), or where a layer's sizes do not fit.
  Encoder(const std::vector<LayerOf>& layers, const NormOf* last, size_t width, size_t num_heads, float eps, bool bf16);

  struct Rotary {
    const float *cos, *sin;  // (T, head_dim / 2), or null
  };
  // x (T, D) is overwritten. With `rows` (num_rows of them, below T) the first num_rows of x are those rows of the
  // result; null: all. `rotary`: one for each layer.
  void forward(void* x, size_t num_tokens, const std::vector<AttentionSequence>& sequences,
               const std::vector<Rotary>& rotary, const int64_t* rows, size_t num_rows, int threads) const;

  size_t width() const { return width_; }
  size_t num_layers() const { return layers_.size(); }
  bool bf16() const { return bf16_; }

  // Whether this machine has products for the type.
  static bool runs(bool bf16);

 private:
  struct Matrix {
    size_t in, out, at;  // at: bytes into packed_
    std::vector<float> bias;
  };
  struct Norm {
    std::vector<float> weight, bias;
  };
  struct Layer {
    Matrix qkv, attention_out, up, down;
    Norm attention_norm, feed_forward_norm;
    int64_t window;
    bool gated, tanh;
  };
  template <class E>
  struct Run;

  LinearKernel kernel_;
  std::vector<Layer> layers_;
  Norm last_;
  size_t width_, num_heads_;
  float eps_;
  bool bf16_, post_;
  std::unique_ptr<char, FreeAligned> packed_;  // every matrix, in the order of use
};

}  // namespace fastbert
