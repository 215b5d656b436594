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

namespace {

// y by int8 products of one kernel, bit for bit comparable with another's
template <class Element>
std::vector<Element> by_int8(const fastbert::LinearKernel& kernel, size_t rows, size_t in, size_t out, int ordered) {
  const auto x = as<Element>(numbers(rows * in, 4));
  const std::vector<float> weight = numbers(out * in, 5), bias = numbers((out + 15) / 16 * 16, 6);
  std::vector<int32_t> order(in);
  for (size_t k = 0; k < in; ++k) order[k] = static_cast<int32_t>(in - 1 - k);
  const std::vector<float> factor = numbers(in, 7);
  std::vector<char> memory(kernel.packed_bytes(in, out) + 64);
  char* packed = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  kernel.pack(weight.data(), in, out, packed);
  std::vector<char> quantized(rows * in);
  std::vector<float> scale(rows * fastbert::quant_blocks(in)), lowest(scale.size());
  const fastbert::QuantizeRows from{in,
                                    x.data(),
                                    ordered == 2 ? order.data() : nullptr,
                                    ordered ? factor.data() : nullptr,
                                    quantized.data(),
                                    scale.data(),
                                    lowest.data()};
  kernel.quantize(from, 0, rows / 2);
  kernel.quantize(from, rows / 2, rows);
  std::vector<Element> y(rows * out);
  const fastbert::Linear of{rows,        in,       out,          quantized.data(), packed,
                            bias.data(), y.data(), scale.data(), lowest.data()};
  for (size_t task = 0; task < kernel.num_tasks(of); ++task) kernel.run(of, task);
  return y;
}

// the greatest difference to the products in double, over the size of y
template <class Element>
double error_of(const std::vector<Element>& y, size_t rows, size_t in, size_t out) {
  const std::vector<float> x = numbers(rows * in, 4), weight = numbers(out * in, 5),
                           bias = numbers((out + 15) / 16 * 16, 6);
  double worst = 0;
  for (size_t m = 0; m < rows; ++m)
    for (size_t n = 0; n < out; ++n) {
      double sum = bias[n];
      for (size_t k = 0; k < in; ++k) sum += static_cast<double>(x[m * in + k]) * weight[n * in + k];
      worst = std::max(worst, std::abs(number(y[m * out + n]) - sum));
    }
  return worst / std::sqrt(static_cast<double>(in));
}

template <class Element>
void same_bits(const fastbert::LinearKernel& kernel, const fastbert::LinearKernel& plain, double close) {
  if (!kernel.run) return;
  for (const size_t rows : {1, 5, 17, 100})
    for (const size_t out : {16, 40, 130})
      for (const size_t in : {16, 128, 140, 388}) {
        CAPTURE(rows);
        CAPTURE(out);
        CAPTURE(in);
        for (const int ordered : {0, 1, 2}) {
          const auto y = by_int8<Element>(kernel, rows, in, out, ordered);
          const auto spec = by_int8<Element>(plain, rows, in, out, ordered);
          CHECK(std::memcmp(y.data(), spec.data(), y.size() * sizeof(Element)) == 0);
          if (!ordered) CHECK(error_of<Element>(y, rows, in, out) < close);
        }
      }
}

}  // namespace

TEST_CASE("linear: int8 products give the plain loops' bits on every instruction set, and nearly the products") {
  const fastbert::LinearKernels& plain = fastbert::linear_kernels(fastbert::Isa::kScalar);
  for (const auto isa : fastbert::available_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    const fastbert::LinearKernels& kernels = fastbert::linear_kernels(isa);
    same_bits<float>(kernels.int8, plain.int8, 0.02);
    same_bits<Bf16>(kernels.int8_bf16, plain.int8_bf16, 0.05);
  }
}

TEST_CASE("linear: int8 of what is no number, is infinite or is all the same") {
  for (const auto isa : fastbert::available_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    const fastbert::LinearKernel& kernel = fastbert::linear_kernels(isa).int8;
    if (!kernel.run) continue;
    constexpr size_t kIn = 20;
    for (const float odd : {std::nanf(""), INFINITY, -INFINITY, 3.0f}) {
      std::vector<float> x(kIn, 3.0f), weight(kIn * 16, 0.5f), y(16);
      x[kIn - 1] = odd;
      std::vector<char> memory(kernel.packed_bytes(kIn, 16) + 64), quantized(kIn);
      char* packed = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
      kernel.pack(weight.data(), kIn, 16, packed);
      float scale = 0, lowest = 0;
      kernel.quantize({kIn, x.data(), nullptr, nullptr, quantized.data(), &scale, &lowest}, 0, 1);
      const fastbert::Linear of{1, kIn, 16, quantized.data(), packed, nullptr, y.data(), &scale, &lowest};
      for (size_t task = 0; task < kernel.num_tasks(of); ++task) kernel.run(of, task);
      if (odd == 3.0f) CHECK(y[3] == doctest::Approx(30.0f));
      else CHECK(!std::isfinite(y[3]));
    }
  }
}
