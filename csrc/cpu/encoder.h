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
  const void* weight;  // (out, in), in the hidden states' type; float for int8
  size_t out, in;
  const float* bias;               // (out) or null
  const int32_t* order = nullptr;  // for int8, or null: weight's columns are x's in this order,
  const float* factor = nullptr;   // times this
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

enum class Products { kFloats, kBf16, kInt8 };  // what a layer's matrices are multiplied in; see linear.h

class Encoder {
 public:
  // `last`: the norm behind a pre-norm encoder; null: post-norm. Throws std::invalid_argument where this machine has no
  // product for the type (see linear.h), or where a layer's sizes do not fit.
  Encoder(const std::vector<LayerOf>& layers, const NormOf* last, size_t width, size_t num_heads, float eps,
          Products products);

  struct Rotary {
    const float *cos, *sin;  // (T, head_dim / 2), or null
  };
  // x (T, D) is overwritten. With `rows` (num_rows of them, below T) the first num_rows of x are those rows of the
  // result; null: all. `rotary`: one for each layer. `largest` (num_columns()): the largest magnitude in each column
  // of each matrix's x, in the order of use, is raised to this call's; null: not wanted.
  void forward(void* x, size_t num_tokens, const std::vector<AttentionSequence>& sequences,
               const std::vector<Rotary>& rotary, const int64_t* rows, size_t num_rows, int threads,
               float* largest = nullptr) const;

  size_t width() const { return width_; }
  size_t num_columns() const { return num_columns_; }
  size_t num_layers() const { return layers_.size(); }
  bool bf16() const { return bf16_; }  // hidden states; with int8 where attention has bf16 instructions

  // Whether this machine has products of the kind that are worth their while.
  static bool runs(Products products);

 private:
  struct Matrix {
    size_t in, out, at, first;  // at: bytes into packed_; first: of its columns among those of all matrices
    std::vector<float> bias;
    std::vector<int32_t> order;  // for int8, or empty
    std::vector<float> factor;
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
  size_t width_, num_heads_, num_columns_ = 0;
  float eps_;
  bool bf16_, post_;
  std::unique_ptr<char, FreeAligned> packed_;  // every matrix, in the order of use
};

}  // namespace fastbert
