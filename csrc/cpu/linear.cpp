// The plain products of int8, and the choice among instruction sets.
#include "cpu/linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/bf16.h"
#include "cpu/quantize.h"

namespace fastbert {
namespace {

void write(float x, float* to) { *to = x; }
void write(float x, Bf16* to) { *to = to_bf16(x); }

// Every row of weights on its own: for each block its scale, its total and its whole numbers, all as floats.
template <class Element>
struct PlainQuantized {
  static size_t row_floats(size_t in) { return 2 * quant_blocks(in) + in; }
  static size_t packed_bytes(size_t in, size_t out) { return row_floats(in) * out * sizeof(float); }

  static void pack(const void* weight, size_t in, size_t out, void* packed) {
    auto* to = static_cast<float*>(packed);
    for (size_t n = 0; n < out; ++n)
      for (size_t k = 0; k < in; k += kQuantBlock) {
        const size_t count = std::min(kQuantBlock, in - k);
        quantize_weights(static_cast<const float*>(weight) + n * in + k, count, to + 2, to, to + 1);
        to += 2 + count;
      }
  }

  static void quantize(const QuantizeRows& of, size_t begin, size_t end) {
    std::vector<float> x(of.in);
    for (size_t row = begin; row < end; ++row) {
      const auto* from = static_cast<const Element*>(of.x) + row * of.in;
      for (size_t k = 0; k < of.in; ++k)
        x[k] = to_float(from[of.order ? of.order[k] : k]) * (of.factor ? of.factor[k] : 1.0f);
      for (size_t k = 0, at = row * quant_blocks(of.in); k < of.in; k += kQuantBlock, ++at) {
        const size_t stop = std::min(of.in, k + kQuantBlock);
        float low = x[k], high = x[k], all = 0.0f;
        for (size_t i = k; i < stop; ++i) low = std::min(low, x[i]), high = std::max(high, x[i]), all += x[i] * 0.0f;
        const BlockScale block = block_scale(low, high, all);
        of.scale[at] = block.scale, of.lowest[at] = low;
        for (size_t i = k; i < stop; ++i) {
          const float whole = std::nearbyint((x[i] - low) * block.inverse);
          static_cast<uint8_t*>(of.quantized)[row * of.in + i] = static_cast<uint8_t>(whole == whole ? whole : 0.0f);
        }
      }
    }
  }

  static size_t num_tasks(const Linear& of) { return of.rows; }

  static void run(const Linear& of, size_t row) {
    const size_t blocks = quant_blocks(of.in);
    const uint8_t* x = static_cast<const uint8_t*>(of.x) + row * of.in;
    const auto* packed = static_cast<const float*>(of.packed);
    for (size_t n = 0; n < of.out; ++n) {
      float y = of.bias ? of.bias[n] : 0.0f;
      for (size_t k = 0, at = row * blocks; k < of.in; k += kQuantBlock, ++at) {
        const size_t count = std::min(kQuantBlock, of.in - k);
        int32_t sum = 0;
        for (size_t i = 0; i < count; ++i) sum += x[k + i] * static_cast<int32_t>(packed[2 + i]);
        y = std::fma(of.lowest[at], packed[1], y);
        y = std::fma(static_cast<float>(sum) * packed[0], of.scale[at], y);
        packed += 2 + count;
      }
      write(y, static_cast<Element*>(of.y) + row * of.out + n);
    }
  }

  static constexpr LinearKernel kKernel{&packed_bytes, &pack, &num_tasks, &run, &quantize};
};

// bf16 with AMX: oneDNN's products are taken; and without AVX2 for everything, but for these.
constexpr LinearKernels kPlain{{}, {}, PlainQuantized<float>::kKernel, PlainQuantized<Bf16>::kKernel};

#ifdef FASTBERT_X86
LinearKernels with_int8(LinearKernels kernels) {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512vnni")) return kernels;
  kernels.int8 = linear_kernels_vnni.int8, kernels.int8_bf16 = linear_kernels_vnni.int8_bf16;
  return kernels;
}
#endif

}  // namespace

const LinearKernels& linear_kernels(Isa isa) {
  switch (isa) {
#ifdef FASTBERT_X86
    case Isa::kAmxBf16: return linear_kernels_avx512;
    case Isa::kAvx512: {
      static const LinearKernels kernels = with_int8(linear_kernels_avx512);
      return kernels;
    }
    case Isa::kAvx512Bf16: {
      static const LinearKernels kernels = with_int8(linear_kernels_avx512_bf16);
      return kernels;
    }
    case Isa::kAvx2: return linear_kernels_avx2;
#endif
    default: return kPlain;
  }
}

}  // namespace fastbert
