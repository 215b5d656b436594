// Vec on 16 floats: AVX-512 F, BW, DQ, VL; with FASTBERT_BF16_UNITS defined before, also the BF16 instructions. The
// same rules as in vec_avx2.h.
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

#ifdef FASTBERT_BF16_UNITS
#define FASTBERT_VEC_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"
#else
#define FASTBERT_VEC_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#endif
#ifdef __clang__
#pragma clang attribute push(__attribute__((target(FASTBERT_VEC_TARGET))), apply_to = function)
#define FASTBERT_VEC_END _Pragma("clang attribute pop")
#else
#pragma GCC push_options
#ifdef FASTBERT_BF16_UNITS
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#define FASTBERT_VEC_END _Pragma("GCC pop_options")
#endif

namespace fastbert {
namespace {

struct Vec {
  static constexpr size_t kWidth = 16;
  using T = __m512;

  static __mmask16 first(size_t n) { return static_cast<__mmask16>((1u << n) - 1); }  // lanes below n, n <= 16
  static T widened(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }
  // vcvtneps2bf16 would flush denormals, torch does not
  static __m256i rounded(T x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(sum, nan, _mm512_set1_epi32(0x7FC00000)), 16));
  }

  static T set(float x) { return _mm512_set1_ps(x); }
  static T load(const float* p) { return _mm512_loadu_ps(p); }
  static T load(const Bf16* p) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static T load_first(const float* p, size_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static T load_first(const Bf16* p, size_t n) { return widened(_mm256_maskz_loadu_epi16(first(n), p)); }
  static void store(float* p, T x) { _mm512_storeu_ps(p, x); }
  static void store(Bf16* p, T x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded(x)); }
  static void store_first(float* p, T x, size_t n) { _mm512_mask_storeu_ps(p, first(n), x); }
  static void store_first(Bf16* p, T x, size_t n) { _mm256_mask_storeu_epi16(p, first(n), rounded(x)); }

  static T fma(T a, T b, T c) { return _mm512_fmadd_ps(a, b, c); }
  static T max(T a, T b) { return _mm512_max_ps(a, b); }
  static T min(T a, T b) { return _mm512_min_ps(a, b); }
  static T sqrt(T x) { return _mm512_sqrt_ps(x); }
  static T reciprocal(T x) { return _mm512_rcp14_ps(x); }  // to 13 bits at least
  static float sum(T x) { return _mm512_reduce_add_ps(x); }
  static float largest(T x) { return _mm512_reduce_max_ps(x); }
  static T round(T x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // x · 2^n for whole n in [-126, 127]; 0 for n below
  static T scale_by_power(T x, T n) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, set(-126.0f), _CMP_NLT_UQ), x, n);
  }

  // the same for n in [-126, 127], not tested
  static T scale_in_range(T x, T n) { return _mm512_scalef_ps(x, n); }
  // x in lanes below n, other in the rest
  static T first_of(T x, size_t n, T other) { return _mm512_mask_mov_ps(other, first(n), x); }
  // lane l of x where begin <= at + l < end, else 0
  static T between(T x, size_t at, size_t begin, size_t end) {
    const size_t below = begin > at ? begin - at : 0, stop = end > at ? end - at : 0;
    return _mm512_maskz_mov_ps(static_cast<__mmask16>(first(std::min(stop, kWidth)) & ~first(std::min(below, kWidth))),
                               x);
  }

  static constexpr int kTileRows = 6, kTileVecs = 4;  // of a matrix product: 24 of 32 registers; see panels.h
  static void transpose(T* rows) {                    // 16 x 16
    T a[16], b[16];
    for (int i = 0; i < 8; ++i) {
      a[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
      a[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
      b[4 * i] = _mm512_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
      b[4 * i + 1] = _mm512_shuffle_ps(a[4 * i], a[4 * i + 2], 0xEE);
      b[4 * i + 2] = _mm512_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
      b[4 * i + 3] = _mm512_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xEE);
    }
    for (int i = 0; i < 4; ++i) {  // b[4 g + i]: column 4 l + i in lane l of rows 4 g .. 4 g + 3
      const T low01 = _mm512_shuffle_f32x4(b[i], b[4 + i], 0x44), high01 = _mm512_shuffle_f32x4(b[i], b[4 + i], 0xEE);
      const T low23 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0x44);
      const T high23 = _mm512_shuffle_f32x4(b[8 + i], b[12 + i], 0xEE);
      rows[i] = _mm512_shuffle_f32x4(low01, low23, 0x88);
      rows[4 + i] = _mm512_shuffle_f32x4(low01, low23, 0xDD);
      rows[8 + i] = _mm512_shuffle_f32x4(high01, high23, 0x88);
      rows[12 + i] = _mm512_shuffle_f32x4(high01, high23, 0xDD);
    }
  }
};

}  // namespace
}  // namespace fastbert
