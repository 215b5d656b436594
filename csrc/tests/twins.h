// What the tests of the compute kernels share: inputs, and the comparison of an instruction set with the plain loops.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/bf16.h"
#include "cpu/isa.h"

namespace fastbert {

inline float converted(float x, float) { return x; }
inline Bf16 converted(float x, Bf16) { return to_bf16(x); }

// In [-2, 2).
template <class E = float>
std::vector<E> numbers(size_t count, uint32_t seed) {
  std::vector<E> values(count);
  for (E& x : values) {
    seed = seed * 1664525u + 1013904223u;
    x = converted(static_cast<float>(seed >> 8) / (1 << 24) * 4.0f - 2.0f, E{});
  }
  return values;
}

// Room for `count` results and as many values behind them that no kernel may touch.
template <class E>
std::vector<E> untouched(size_t count) {
  return std::vector<E>(2 * count + 16, converted(77.0f, E{}));
}

// The largest difference, relative to values above 1; infinite where one is NaN and the other not.
template <class E>
double difference(const std::vector<E>& a, const std::vector<E>& b) {
  double worst = a.size() == b.size() ? 0.0 : INFINITY;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double x = to_float(a[i]), y = to_float(b[i]);
    if (std::isnan(x) != std::isnan(y)) worst = INFINITY;
    else if (x == x && x != y) worst = std::max(worst, std::fabs(x - y) / std::max(1.0, std::fabs(y)));
  }
  return worst;
}

// What two orders of the same sums may differ by: a few roundings, and with bf16 that of the result.
template <class E>
constexpr double kTwinsDiffer = sizeof(E) == sizeof(float) ? 1e-5 : 1.0 / 128;

// Every one but the plain loops.
inline std::vector<Isa> vector_isas() {
  auto isas = available_isas();
  isas.erase(isas.begin());
  return isas;
}

}  // namespace fastbert
