#include "cpu/linear.h"

#ifdef FASTBERT_X86
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "cpu/digits.h"
#include "cpu/vec_avx2.h"
#include "cpu/panels.h"
#include "cpu/linear_loop.h"
#include "cpu/digits_loop.h"

namespace fastbert {
namespace {

// Products of bytes (vpmaddubsw) are no quicker: they too take two multiplications for 32, and overflow.
struct Words {
  using Unit = uint32_t;
  using Digit = int16_t;
  using WeightDigit = int16_t;
  static constexpr size_t kPer = 2;
  static constexpr int kTop = 4095, kWeightTop = 2047;
  static Vec::T broadcast(const Unit* p) { return _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(*p))); }
  static Vec::T dot(Vec::T sum, Vec::T a, Vec::T b) {
    const __m256i products = _mm256_madd_epi16(_mm256_castps_si256(a), _mm256_castps_si256(b));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), products));
  }
  static Vec::T number(Vec::T sum) { return _mm256_cvtepi32_ps(_mm256_castps_si256(sum)); }
  static void store_digits(Digit* to, Vec::T x) {
    const __m256i whole = _mm256_cvtps_epi32(x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
  }
};

template <>
constexpr bool kAreDigits<Words> = true;

}  // namespace
}  // namespace fastbert
FASTBERT_VEC_END

namespace fastbert {
const LinearKernels linear_kernels_avx2{
    LinearTasks<Floats, float>::kKernel, {}, {}, {}, DigitTasks<Words, float>::kKernel};
}
#endif
