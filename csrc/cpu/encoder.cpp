#include "cpu/encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <type_traits>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "cpu/rows.h"
#include "cpu/team.h"

namespace fastbert {
namespace {

constexpr std::align_val_t kPage{size_t{2} << 20};  // a large page: reading all weights misses the TLB less
constexpr std::align_val_t kCacheLine{64};
constexpr size_t kRowsLeast = 4, kRowsMost = 16;  // of a part of the row kernels
constexpr size_t kPartsPerThread = 4;             // of a product: what the others may take over

std::vector<float> copied(const float* values, size_t count, size_t padded) {
  if (!values) return {};
  std::vector<float> copy(padded);
  std::copy(values, values + count, copy.begin());
  return copy;
}

const float* or_null(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }

void in_parts(size_t rows, int threads, const std::function<void(size_t begin, size_t end)>& body) {
  const size_t each = rows / static_cast<size_t>(std::max(threads, 1)) + 1;  // one short text is work for two threads
  const size_t size = std::clamp(each, kRowsLeast, kRowsMost);
  team_for((rows + size - 1) / size, threads,
           [&](size_t part, int) { body(part * size, std::min(rows, (part + 1) * size)); });
}

// Tasks that follow each other stay with one thread: a product fetches the weights of the next one.
void in_runs(size_t tasks, int threads, const std::function<void(size_t task)>& body) {
  const size_t parts = std::min(tasks, kPartsPerThread * static_cast<size_t>(std::max(threads, 1)));
  team_for(parts, threads, [&](size_t part, int) {
    for (size_t task = part * tasks / parts; task < (part + 1) * tasks / parts; ++task) body(task);
  });
}

// Attention of bf16 hidden states is worth it with instructions for them.
bool bf16_hidden(Products products) {
  return products == Products::kBf16 || (products == Products::kInt8 && linear_kernels().bf16.run);
}

const LinearKernel& kernel_of(Products products) {
  const LinearKernels& kernels = linear_kernels();
  switch (products) {
    case Products::kBf16: return kernels.bf16;
    case Products::kInt8: return bf16_hidden(products) ? kernels.int8_bf16 : kernels.int8;
    case Products::kFloats: break;
  }
  return kernels.floats;
}

}  // namespace

// The plain loops of int8, on machines without products of floats, are there to be compared with.
bool Encoder::runs(Products products) {
  const LinearKernels& kernels = linear_kernels();
  return kernel_of(products).run && (kernels.floats.run || kernels.bf16.run);
}

Encoder::Encoder(const std::vector<LayerOf>& layers, const NormOf* last, size_t width, size_t num_heads, float eps,
                 Products products)
    : kernel_(kernel_of(products)),
      width_(width),
      num_heads_(num_heads),
      eps_(eps),
      bf16_(bf16_hidden(products)),
      post_(!last) {
  if (!kernel_.run) throw std::invalid_argument("encoder: no products of this type on this machine");
  if (!num_heads || width % num_heads || width / num_heads % 16 || width / num_heads > kMaxHeadDim)
    throw std::invalid_argument("encoder: the heads do not fit");
  const auto norm = [&](const NormOf& of) {
    return Norm{copied(of.weight, width, width), copied(of.bias, width, width)};
  };
  size_t bytes = 0;
  const auto placed = [&](const MatrixOf& of, size_t out, size_t in) {
    const size_t whole = kernel_.quantize ? kQuantAlign : bf16_ ? 2 : 1;
    if (of.out != out || of.in != in || in % whole) throw std::invalid_argument("encoder: a matrix does not fit");
    const size_t padded = (out + kLinearLanes - 1) / kLinearLanes * kLinearLanes;
    Matrix matrix{in, out, bytes, num_columns_, copied(of.bias, out, padded), {}, copied(of.factor, in, in)};
    if (of.order) matrix.order.assign(of.order, of.order + in);
    num_columns_ += in;
    bytes += (kernel_.packed_bytes(in, out) + 63) / 64 * 64;
    return matrix;
  };
  for (const LayerOf& of : layers) {
    const size_t inner = of.down.in;
    if (post_ && !of.attention_norm) throw std::invalid_argument("encoder: post-norm layers need both norms");
    layers_.push_back({placed(of.qkv, 3 * width, width), placed(of.attention_out, width, width),
                       placed(of.up, of.gated ? 2 * inner : inner, width), placed(of.down, width, inner),
                       of.attention_norm ? norm(*of.attention_norm) : Norm{}, norm(of.feed_forward_norm), of.window,
                       of.gated, of.tanh});
  }
  if (last) last_ = norm(*last);
  packed_ = {static_cast<char*>(::operator new(bytes, kPage)), FreeAligned{kPage}};
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  madvise(packed_.get(), bytes, MADV_HUGEPAGE);
#endif
  for (size_t i = 0; i < layers.size(); ++i) {
    const MatrixOf* from[] = {&layers[i].qkv, &layers[i].attention_out, &layers[i].up, &layers[i].down};
    const Matrix* to[] = {&layers_[i].qkv, &layers_[i].attention_out, &layers_[i].up, &layers_[i].down};
    for (size_t m = 0; m < 4; ++m) kernel_.pack(from[m]->weight, to[m]->in, to[m]->out, packed_.get() + to[m]->at);
  }
}

// What is between the layers of one call, for every layer the same.
template <class E>
struct Encoder::Run {
  const Encoder& encoder;
  size_t tokens;
  int threads;
  AttentionArgs attention;
  std::unique_ptr<char, FreeAligned> memory;
  E *qkv, *context, *between, *pre, *act;
  char* quantized = nullptr;  // of one product's x, with the scales behind
  size_t widest = 0;
  float* largest = nullptr;

  Run(const Encoder& of, size_t num_tokens, const std::vector<AttentionSequence>& sequences, int team)
      : encoder(of), tokens(num_tokens), threads(team) {
    const size_t width = of.width_, heads = of.num_heads_, head_dim = width / heads;
    size_t up = 0, inner = 0;
    for (const Layer& layer : of.layers_) {
      up = std::max(up, layer.up.out);
      inner = std::max(inner, layer.gated ? layer.down.in : 0);
      widest = std::max({widest, width, layer.down.in});
    }
    const size_t quantized_bytes = of.kernel_.quantize ? widest + 2 * sizeof(float) * quant_blocks(widest) : 0;
    size_t used = 0;
    const auto place = [&](size_t count, size_t size) {
      const size_t at = used;
      used += (count * size + 63) / 64 * 64 + 64;  // not a power of two apart
      return at;
    };
    const size_t at[] = {place(tokens * 3 * width, sizeof(E)), place(tokens * width, sizeof(E)),
                         place(tokens * width, sizeof(E)),     place(tokens * up, sizeof(E)),
                         place(tokens * inner, sizeof(E)),     place(tokens * heads, sizeof(float)),
                         place(tokens * quantized_bytes, 1)};
    memory = {static_cast<char*>(::operator new(used, kCacheLine)), FreeAligned{kCacheLine}};
    const auto piece = [&](size_t i) { return reinterpret_cast<E*>(memory.get() + at[i]); };
    qkv = piece(0), context = piece(1), between = piece(2), pre = piece(3), act = piece(4);
    quantized = memory.get() + at[6];
    const auto head_stride = static_cast<int64_t>(head_dim), token_stride = static_cast<int64_t>(3 * width);
    attention.q = {qkv, token_stride, head_stride};
    attention.k = {qkv + width, token_stride, head_stride};
    attention.v = {qkv + 2 * width, token_stride, head_stride};
    attention.out = {context, static_cast<int64_t>(width), head_stride};
    attention.lse = reinterpret_cast<float*>(memory.get() + at[5]);
    attention.sequences = sequences.data(), attention.num_sequences = sequences.size();
    attention.num_heads = heads, attention.num_tokens = tokens, attention.head_dim = head_dim;
    attention.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    attention.dropout = {0, dropout_threshold(0.0f)};
  }

  void product(const Matrix& matrix, const E* x, size_t rows, E* y) const {
    Linear of{rows, matrix.in, matrix.out, x, encoder.packed_.get() + matrix.at, or_null(matrix.bias), y};
    for (size_t i = 0; largest && i < rows * matrix.in; ++i) {
      float& top = largest[matrix.first + i % matrix.in];
      top = std::max(top, std::abs(to_float(x[i])));
    }
    if (encoder.kernel_.quantize) {
      auto* scale = reinterpret_cast<float*>(quantized + rows * widest);
      float* lowest = scale + rows * quant_blocks(matrix.in);
      const QuantizeRows from{
          matrix.in, x,     matrix.order.empty() ? nullptr : matrix.order.data(), or_null(matrix.factor), quantized,
          scale,     lowest};
      in_parts(rows, threads, [&](size_t begin, size_t end) { encoder.kernel_.quantize(from, begin, end); });
      of.x = quantized, of.scale = scale, of.lowest = lowest;
    }
    in_runs(encoder.kernel_.num_tasks(of), threads, [&](size_t task) { encoder.kernel_.run(of, task); });
  }

  // out = LayerNorm(x + residual); the sum also to `total`
  void norm(const Norm& by, const E* x, const E* residual, size_t rows, E* out, E* total) const {
    const size_t width = encoder.width_;
    const LayerNormForward<E> of{width,        x,     nullptr, residual, by.weight.data(), or_null(by.bias),
                                 encoder.eps_, total, out,     nullptr,  nullptr};
    in_parts(rows, threads, [&](size_t begin, size_t end) {
      std::vector<float> scratch(width);
      if constexpr (std::is_same_v<E, float>) row_kernels().norm_forward_f32(of, begin, end, scratch.data());
      else row_kernels().norm_forward_bf16(of, begin, end, scratch.data());
    });
  }

  // W₂ act(W₁ x) → context
  void feed_forward(const Layer& layer, const E* x, size_t rows) const {
    product(layer.up, x, rows, pre);
    E* out = layer.gated ? act : pre;
    const GeluForward<E> of{layer.down.in, layer.gated, layer.tanh, pre, nullptr, out};
    in_parts(rows, threads, [&](size_t begin, size_t end) {
      if constexpr (std::is_same_v<E, float>) row_kernels().gelu_forward_f32(of, begin, end);
      else row_kernels().gelu_forward_bf16(of, begin, end);
    });
    product(layer.down, out, rows, context);
  }

  void keep(E* x, const int64_t* rows, size_t count) const {  // rows of x to its beginning, in any order
    std::vector<E> kept(count * encoder.width_);
    const size_t bytes = encoder.width_ * sizeof(E);
    for (size_t i = 0; i < count; ++i)
      std::memcpy(kept.data() + i * encoder.width_, x + static_cast<size_t>(rows[i]) * encoder.width_, bytes);
    std::memcpy(x, kept.data(), count * bytes);
  }

  void layers(E* x, const std::vector<Rotary>& rotary, const int64_t* rows, size_t num_rows) {
    const bool post = encoder.post_;
    size_t count = tokens;
    if (!post) {
      const Norm& first = encoder.layers_[0].attention_norm;
      if (first.weight.empty()) std::memcpy(between, x, tokens * encoder.width_ * sizeof(E));
      else norm(first, x, nullptr, tokens, between, nullptr);
    }
    for (size_t i = 0; i < encoder.layers_.size(); ++i) {
      const Layer& layer = encoder.layers_[i];
      const bool is_last = i + 1 == encoder.layers_.size();
      product(layer.qkv, post ? x : between, tokens, qkv);
      attention.cos = rotary[i].cos, attention.sin = rotary[i].sin, attention.window = layer.window;
      attention_forward(attention, !std::is_same_v<E, float>, threads);
      if (is_last && rows) {
        keep(context, rows, num_rows);
        keep(x, rows, num_rows);
        count = num_rows;
      }
      product(layer.attention_out, context, count, qkv);
      if (post) {
        norm(layer.attention_norm, qkv, x, count, between, nullptr);
        feed_forward(layer, between, count);
        norm(layer.feed_forward_norm, context, between, count, x, nullptr);
      } else {
        norm(layer.feed_forward_norm, qkv, x, count, between, x);
        feed_forward(layer, between, count);
        norm(is_last ? encoder.last_ : encoder.layers_[i + 1].attention_norm, context, x, count, is_last ? x : between,
             is_last ? nullptr : x);
      }
    }
  }
};

void Encoder::forward(void* x, size_t num_tokens, const std::vector<AttentionSequence>& sequences,
                      const std::vector<Rotary>& rotary, const int64_t* rows, size_t num_rows, int threads,
                      float* largest) const {
  if (rotary.size() != layers_.size()) throw std::invalid_argument("encoder: expected angles for every layer");
  if (!num_tokens) return;
  const auto run = [&](auto of, auto* hidden) {
    of.largest = largest;
    of.layers(hidden, rotary, rows, num_rows);
  };
  if (bf16_) run(Run<Bf16>(*this, num_tokens, sequences, threads), static_cast<Bf16*>(x));
  else run(Run<float>(*this, num_tokens, sequences, threads), static_cast<float*>(x));
}

}  // namespace fastbert
