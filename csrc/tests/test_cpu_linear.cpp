#include "cpu/linear.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/bf16.h"

using fastbert::Bf16;

namespace {

std::vector<float> numbers(size_t count, uint32_t seed) {
  std::vector<float> values(count);
  for (float& x : values) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) / (1 << 24) * 2.0f - 1.0f;
    const Bf16 rounded = fastbert::to_bf16(x);  // one set of numbers for both types
    x = fastbert::to_float(rounded);
  }
  return values;
}

template <class Element>
std::vector<Element> as(const std::vector<float>& values) {
  std::vector<Element> out(values.size());
  for (size_t i = 0; i < values.size(); ++i)
    if constexpr (sizeof(Element) == sizeof(float)) out[i] = values[i];
    else out[i] = fastbert::to_bf16(values[i]);
  return out;
}

float number(float x) { return x; }
float number(Bf16 x) { return fastbert::to_float(x); }

template <class Element>
void check(const fastbert::LinearKernel& kernel, size_t rows, size_t in, size_t out, bool biased) {
  CAPTURE(rows);
  CAPTURE(in);
  CAPTURE(out);
  const std::vector<float> x = numbers(rows * in, 1), weight = numbers(out * in, 2);
  std::vector<float> bias = numbers((out + 15) / 16 * 16, 3);
  const auto own_x = as<Element>(x), own_weight = as<Element>(weight);
  std::vector<char> memory(kernel.packed_bytes(in, out) + 64);
  char* packed = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  kernel.pack(own_weight.data(), in, out, packed);
  std::vector<Element> y(rows * out + 1);
  y.back() = Element(own_x[0]);
  const fastbert::Linear of{rows, in, out, own_x.data(), packed, biased ? bias.data() : nullptr, y.data()};
  for (size_t task = 0; task < kernel.num_tasks(of); ++task) kernel.run(of, task);
  double worst = 0;
  for (size_t m = 0; m < rows; ++m)
    for (size_t n = 0; n < out; ++n) {
      double sum = biased ? bias[n] : 0.0;
      for (size_t k = 0; k < in; ++k) sum += static_cast<double>(x[m * in + k]) * weight[n * in + k];
      const double close =
          sizeof(Element) == 4 ? 1e-6 * std::sqrt(static_cast<double>(in)) : 1e-3 + std::abs(sum) / 256;
      worst = std::max(worst, std::abs(number(y[m * out + n]) - sum) / close);
    }
  CHECK(worst <= 4.0);
  CHECK(number(y.back()) == number(own_x[0]));  // nothing behind the result is written
}

}  // namespace

TEST_CASE("linear: x Wᵀ + b on every instruction set, at any number of rows and columns") {
  size_t seen = 0;
  for (const auto isa : fastbert::available_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    const fastbert::LinearKernels& kernels = fastbert::linear_kernels(isa);
    for (const size_t rows : {1, 2, 6, 7, 13, 17, 100, 193})
      for (const size_t out : {16, 40, 64, 130})
        for (const size_t in : {16, 70, 272}) {
          const bool biased = rows % 2;
          if (kernels.floats.run) check<float>(kernels.floats, rows, in, out, biased), ++seen;
          if (kernels.bf16.run) check<Bf16>(kernels.bf16, rows, in, out, biased), ++seen;
        }
    if (kernels.floats.run) check<float>(kernels.floats, 3, 33, 48, true);
  }
  WARN(seen > 0);
}
