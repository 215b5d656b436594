// Vec on 8 floats: AVX2 with FMA. From here to FASTBERT_VEC_END every function is compiled for them: include the
// standard headers before this one, and use no lambdas below it (they would not get the instruction set).
#pragma once
// GCC 12 takes the undefined upper half of a cast for a mistake of ours (its bug 105593)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "cpu/bf16.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define FASTBERT_VEC_END _Pragma("clang attribute pop")
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define FASTBERT_VEC_END _Pragma("GCC pop_options")
#endif

namespace fastbert {
namespace {

struct Vec {
  static constexpr size_t kWidth = 8;
  using T = __m256;

  static T set(float x) { return _mm256_set1_ps(x); }
  static T load(const float* p) { return _mm256_loadu_ps(p); }
  static T load(const Bf16* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  static __m256i first(size_t n) {  // lanes below n
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static T load_first(const float* p, size_t n) { return _mm256_maskload_ps(p, first(n)); }
  static T load_first(const Bf16* p, size_t n) {
    Bf16 lanes[8] = {};
    std::memcpy(lanes, p, n * sizeof *p);
    return load(lanes);
  }
  static void store(float* p, T x) { _mm256_storeu_ps(p, x); }
  static void store(Bf16* p, T x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), rounded(x)); }
  static void store_first(float* p, T x, size_t n) { _mm256_maskstore_ps(p, first(n), x); }
  static void store_first(Bf16* p, T x, size_t n) {
    Bf16 lanes[8];
    store(lanes, x);
    std::memcpy(p, lanes, n * sizeof *p);
  }
  static __m128i rounded(T x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i upper = _mm256_srli_epi32(_mm256_blendv_epi8(sum, _mm256_set1_epi32(0x7FC00000), nan), 16);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(upper, upper), 0x08));
  }

  static T fma(T a, T b, T c) { return _mm256_fmadd_ps(a, b, c); }
  static T max(T a, T b) { return _mm256_max_ps(a, b); }
  static T min(T a, T b) { return _mm256_min_ps(a, b); }
  static T sqrt(T x) { return _mm256_sqrt_ps(x); }
  static T reciprocal(T x) {  // to 13 bits at least: the machine's 11 and one step of Newton
    const T r = _mm256_rcp_ps(x);
    return _mm256_mul_ps(r, _mm256_fnmadd_ps(x, r, set(2.0f)));
  }
  static float sum(T x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  static float largest(T x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  static T round(T x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // x · 2^n for whole n in [-126, 127]; 0 for n below
  static T scale_by_power(T x, T n) {
    const T kept = _mm256_cmp_ps(n, set(-126.0f), _CMP_NLT_UQ);
    const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(kept, _mm256_mul_ps(x, _mm256_castsi256_ps(exponent)));
  }

  // the same for n in [-126, 127], not tested
  static T scale_in_range(T x, T n) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(x, _mm256_castsi256_ps(exponent));
  }
  // x in lanes below n, other in the rest
  static T first_of(T x, size_t n, T other) { return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(first(n))); }
  // lane l of x where first <= at + l < end, else 0
  static T between(T x, size_t at, size_t begin, size_t end) {
    const size_t below = begin > at ? begin - at : 0, stop = end > at ? end - at : 0;
    return _mm256_castsi256_ps(_mm256_andnot_si256(
        first(std::min(below, kWidth)), _mm256_and_si256(first(std::min(stop, kWidth)), _mm256_castps_si256(x))));
  }

  static constexpr int kTileRows = 6, kTileVecs = 2;  // of a matrix product: 12 of 16 registers; see panels.h
  static void transpose(T* rows) {                    // 8 x 8
    T a[8], b[8];
    for (int i = 0; i < 4; ++i) {
      a[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
      a[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
      b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
      b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xEE);
      b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
      b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xEE);
    }
    for (int i = 0; i < 4; ++i) {
      rows[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
      rows[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
  }
};

}  // namespace
}  // namespace fastbert
