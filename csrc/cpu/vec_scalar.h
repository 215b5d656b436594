// Vec on plain floats: what every machine can run. A source file includes exactly one vec_*.h.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>

#include "cpu/bf16.h"

namespace fastbert {
namespace {

struct Vec {
  static constexpr size_t kWidth = 1;
  using T = float;

  static T set(float x) { return x; }
  static T load(const float* p) { return *p; }
  static T load(const Bf16* p) { return to_float(*p); }
  template <class Element>
  static T load_first(const Element* p, size_t n) {
    return n ? load(p) : 0.0f;
  }
  static void store(float* p, T x) { *p = x; }
  static void store(Bf16* p, T x) { *p = to_bf16(x); }
  template <class Element>
  static void store_first(Element* p, T x, size_t n) {
    if (n) store(p, x);
  }

  static T fma(T a, T b, T c) { return a * b + c; }
  // of a number and NaN the second, as on x86
  static T max(T a, T b) { return a > b ? a : b; }
  static T min(T a, T b) { return a < b ? a : b; }
  static T sqrt(T x) { return std::sqrt(x); }
  static T reciprocal(T x) { return 1.0f / x; }  // to 13 bits at least
  static float sum(T x) { return x; }
  static float largest(T x) { return x; }
  static T round(T x) { return std::nearbyint(x); }
  // x · 2^n for whole n in [-126, 127]; 0 for n below
  static T scale_by_power(T x, T n) {
    if (n != n) return n;
    return n < -126.0f ? 0.0f : std::ldexp(x, static_cast<int>(std::min(n, 1000.0f)));
  }

  // the same for n in [-126, 127], not tested
  static T scale_in_range(T x, T n) { return scale_by_power(x, n); }
  // x in lanes below n, other in the rest
  static T first_of(T x, size_t n, T other) { return n ? x : other; }
  // lane l of x where first <= at + l < end, else 0
  static T between(T x, size_t at, size_t first, size_t end) { return first <= at && at < end ? x : 0.0f; }

  static constexpr int kTileRows = 4, kTileVecs = 4;  // of a matrix product: see panels.h
  static void transpose(T*) {}
};

}  // namespace
}  // namespace fastbert
#define FASTBERT_VEC_END
