#include "cpu/linear.h"

#ifdef FASTBERT_X86
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "cpu/quantize.h"
#include "cpu/vec_avx512.h"
#ifndef __clang__
#define FASTBERT_UNROLLED _Pragma("GCC unroll 8")
#endif
#include "cpu/panels.h"
#include "cpu/linear_loop.h"
#include "cpu/quantized_loop.h"

namespace fastbert {
namespace {

// Assembler instead of intrinsics: GCC 12 copies every sum before it adds to it, which halves the speed.
struct Bytes {
  using Unit = uint32_t;
  static constexpr size_t kPer = 4;
  static Vec::T broadcast(const Unit* p) { return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*p))); }
  static Vec::T dot(Vec::T sum, Vec::T a, Vec::T b) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
  static Vec::T number(Vec::T sum) { return _mm512_cvtepi32_ps(_mm512_castps_si512(sum)); }
  static void store_quantized(uint8_t* to, Vec::T x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x)));
  }
};

template <>
constexpr bool kQuantized<Bytes> = true;

}  // namespace
}  // namespace fastbert
FASTBERT_VEC_END

namespace fastbert {
const LinearKernels linear_kernels_vnni{
    {}, {}, QuantizedTasks<Bytes, float>::kKernel, QuantizedTasks<Bytes, Bf16>::kKernel};
}
#endif
