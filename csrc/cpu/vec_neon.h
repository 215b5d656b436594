// Vec on 4 floats: NEON, which every 64-bit Arm processor has; with FASTBERT_BF16_UNITS defined before, also the BF16
// instructions, for which the same rules hold as in vec_avx2.h.
#pragma once
#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "cpu/bf16.h"

#ifdef FASTBERT_BF16_UNITS
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("bf16"))), apply_to = function)
#define FASTBERT_VEC_END _Pragma("clang attribute pop")
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+bf16")
#define FASTBERT_VEC_END _Pragma("GCC pop_options")
#endif
#else
#define FASTBERT_VEC_END
#endif

#ifndef __clang__
#define FASTBERT_UNROLLED _Pragma("GCC unroll 8")  // GCC 12 stored the sums of a tile in every round; see panels.h
#endif

namespace fastbert {
namespace {

struct Vec {
  static constexpr size_t kWidth = 4;
  using T = float32x4_t;

  // Memory may hold anything, as for x86's intrinsics: vld1q and vst1q would assume that it holds nothing but floats,
  // and the scratch of bf16's units holds pairs.
  template <class Register>
  struct __attribute__((packed, may_alias)) Anything {
    Register x;
  };
  template <class Register>
  static Register read(const void* p) {
    return static_cast<const Anything<Register>*>(p)->x;
  }
  template <class Register>
  static void write(void* p, Register x) {
    static_cast<Anything<Register>*>(p)->x = x;
  }

  static T set(float x) { return vdupq_n_f32(x); }
  static T load(const float* p) { return read<T>(p); }
  static T load(const Bf16* p) { return vreinterpretq_f32_u32(vshll_n_u16(read<uint16x4_t>(p), 16)); }
  static uint32x4_t first(size_t n) {  // lanes below n
    constexpr uint32_t kLane[4] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(kLane), vdupq_n_u32(static_cast<uint32_t>(n)));
  }
  template <class Element>
  static T load_first(const Element* p, size_t n) {
    if (n >= kWidth) return load(p);
    Element lanes[kWidth] = {};
    std::memcpy(lanes, p, n * sizeof *p);
    return load(lanes);
  }
  static void store(float* p, T x) { write(p, x); }
  static void store(Bf16* p, T x) { write(p, rounded(x)); }
  template <class Element>
  static void store_first(Element* p, T x, size_t n) {
    if (n >= kWidth) return store(p, x);
    Element lanes[kWidth];
    store(lanes, x);
    std::memcpy(p, lanes, n * sizeof *p);
  }
  static uint16x4_t rounded(T x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t sum = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7FFF)), odd);
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), sum, vdupq_n_u32(0x7FC00000)), 16);
  }

  static T fma(T a, T b, T c) { return vfmaq_f32(c, a, b); }
  // of a number and NaN the NaN, on whichever side: more than vec_math.h asks for
  static T max(T a, T b) { return vmaxq_f32(a, b); }
  static T min(T a, T b) { return vminq_f32(a, b); }
  static T sqrt(T x) { return vsqrtq_f32(x); }
  static T reciprocal(T x) {  // to 13 bits at least: the machine's 8 and one step of Newton
    const T r = vrecpeq_f32(x);
    return vmulq_f32(r, vrecpsq_f32(x, r));
  }
  static float sum(T x) { return vaddvq_f32(x); }
  static float largest(T x) { return vmaxvq_f32(x); }
  static T round(T x) { return vrndnq_f32(x); }
  // x · 2^n for whole n in [-126, 127]; 0 for n below
  static T scale_by_power(T x, T n) {
    const uint32x4_t below = vcltq_f32(n, set(-126.0f));  // false of NaN
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(scale_in_range(x, n)), below));
  }

  // the same for n in [-126, 127], not tested
  static T scale_in_range(T x, T n) {
    const uint32x4_t exponent = vaddq_u32(vreinterpretq_u32_s32(vcvtq_s32_f32(n)), vdupq_n_u32(127));
    return vmulq_f32(x, vreinterpretq_f32_u32(vshlq_n_u32(exponent, 23)));
  }
  // x in lanes below n, other in the rest
  static T first_of(T x, size_t n, T other) { return vbslq_f32(first(n), x, other); }
  // lane l of x where begin <= at + l < end, else 0
  static T between(T x, size_t at, size_t begin, size_t end) {
    const size_t below = begin > at ? begin - at : 0, stop = end > at ? end - at : 0;
    const uint32x4_t kept = vbicq_u32(first(std::min(stop, kWidth)), first(std::min(below, kWidth)));
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), kept));
  }

  // of a matrix product: 20 registers, and 9 for A and B; see panels.h
  static constexpr int kTileRows = 5, kTileVecs = 4;
  static void transpose(T* rows) {  // 4 x 4
    const float64x2_t even01 = vreinterpretq_f64_f32(vtrn1q_f32(rows[0], rows[1]));
    const float64x2_t odd01 = vreinterpretq_f64_f32(vtrn2q_f32(rows[0], rows[1]));
    const float64x2_t even23 = vreinterpretq_f64_f32(vtrn1q_f32(rows[2], rows[3]));
    const float64x2_t odd23 = vreinterpretq_f64_f32(vtrn2q_f32(rows[2], rows[3]));
    rows[0] = vreinterpretq_f32_f64(vtrn1q_f64(even01, even23));
    rows[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23));
    rows[2] = vreinterpretq_f32_f64(vtrn2q_f64(even01, even23));
    rows[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23));
  }
};

}  // namespace
}  // namespace fastbert
