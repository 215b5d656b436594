#include "cpu/rows.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "twins.h"

using namespace fastbert;

namespace {

constexpr size_t kRows = 3;
const size_t kWidths[] = {1, 3, 4, 7, 8, 15, 16, 17, 33, 64, 130};

auto norm_forward(const RowKernels& k, float) { return k.norm_forward_f32; }
auto norm_forward(const RowKernels& k, Bf16) { return k.norm_forward_bf16; }
auto norm_backward(const RowKernels& k, float) { return k.norm_backward_f32; }
auto norm_backward(const RowKernels& k, Bf16) { return k.norm_backward_bf16; }
auto gelu_forward(const RowKernels& k, float) { return k.gelu_forward_f32; }
auto gelu_forward(const RowKernels& k, Bf16) { return k.gelu_forward_bf16; }
auto gelu_backward(const RowKernels& k, float) { return k.gelu_backward_f32; }
auto gelu_backward(const RowKernels& k, Bf16) { return k.gelu_backward_bf16; }
auto sum_rows(const RowKernels& k, float) { return k.sum_rows_f32; }
auto sum_rows(const RowKernels& k, Bf16) { return k.sum_rows_bf16; }

template <class E>
struct Results {
  std::vector<E> values[2];
  std::vector<float> floats[3];
};

template <class E>
void check(const Results<E>& found, const Results<E>& plain) {
  for (int i = 0; i < 2; ++i) CHECK(difference(found.values[i], plain.values[i]) <= kTwinsDiffer<E>);
  // sums of bf16's products are float32, but GELU's and LayerNorm's values in them are coarse
  for (int i = 0; i < 3; ++i) CHECK(difference(found.floats[i], plain.floats[i]) <= kTwinsDiffer<E>);
}

template <class E>
Results<E> layer_norm(const RowKernels& kernels, size_t width, bool full) {
  const auto x = numbers<E>(kRows * width, 1), residual = numbers<E>(kRows * width, 2);
  const auto x_bias = numbers(width, 3), weight = numbers(width, 4), bias = numbers(width, 5);
  Results<E> r{{untouched<E>(kRows * width), untouched<E>(kRows * width)},
               {untouched<float>(kRows), untouched<float>(kRows), {}}};
  std::vector<float> scratch(width);
  norm_forward(kernels, E{})({width, x.data(), full ? x_bias.data() : nullptr, full ? residual.data() : nullptr,
                              weight.data(), full ? bias.data() : nullptr, 1e-5f, r.values[0].data(),
                              r.values[1].data(), r.floats[0].data(), r.floats[1].data()},
                             0, kRows, scratch.data());
  return r;
}

// from means of the plain loops, so that only the backward is compared
template <class E>
Results<E> layer_norm_backward(const RowKernels& kernels, size_t width, bool full) {
  const auto forward = layer_norm<E>(row_kernels_scalar, width, true);
  const auto grad_out = numbers<E>(kRows * width, 6), grad_sum = numbers<E>(kRows * width, 7);
  const auto weight = numbers(width, 4);
  Results<E> r{{untouched<E>(kRows * width), {}}, {untouched<float>(3 * width), {}, {}}};
  norm_backward(kernels, E{})({width, grad_out.data(), full ? grad_sum.data() : nullptr, forward.values[0].data(),
                               forward.floats[0].data(), forward.floats[1].data(), weight.data(), r.values[0].data()},
                              0, kRows, r.floats[0].data());
  return r;
}

template <class E>
Results<E> gelu(const RowKernels& kernels, size_t width, bool gated, bool tanh) {
  const size_t x_width = gated ? 2 * width : width;
  const auto x = numbers<E>(kRows * x_width, 8), grad_out = numbers<E>(kRows * width, 9);
  const auto bias = numbers(x_width, 10);
  Results<E> r{{untouched<E>(kRows * width), untouched<E>(kRows * x_width)}, {untouched<float>(x_width), {}, {}}};
  gelu_forward(kernels, E{})({width, gated, tanh, x.data(), bias.data(), r.values[0].data()}, 0, kRows);
  gelu_backward(kernels, E{})({width, gated, tanh, grad_out.data(), x.data(), bias.data(), r.values[1].data()}, 0,
                              kRows, r.floats[0].data());
  return r;
}

template <class E>
Results<E> sums(const RowKernels& kernels, size_t width) {
  const auto x = numbers<E>(kRows * width, 11);
  Results<E> r{{}, {untouched<float>(width), {}, {}}};
  sum_rows(kernels, E{})(x.data(), width, 0, kRows, r.floats[0].data());
  return r;
}

template <class E>
void compare(Isa isa) {
  const RowKernels &kernels = row_kernels(isa), &plain = row_kernels_scalar;
  for (const size_t width : kWidths) {
    CAPTURE(width);
    for (const bool yes : {false, true}) {
      check(layer_norm<E>(kernels, width, yes), layer_norm<E>(plain, width, yes));
      check(layer_norm_backward<E>(kernels, width, yes), layer_norm_backward<E>(plain, width, yes));
      for (const bool tanh : {false, true}) check(gelu<E>(kernels, width, yes, tanh), gelu<E>(plain, width, yes, tanh));
    }
    check(sums<E>(kernels, width), sums<E>(plain, width));
  }
}

}  // namespace

TEST_CASE("rows: LayerNorm, GELU, GeGLU and sums of every instruction set are those of the plain loops") {
  for (const auto isa : vector_isas()) {
    CAPTURE(isa_name(isa));
    compare<float>(isa);
    compare<Bf16>(isa);
  }
}

TEST_CASE("rows: GELU far from zero, and of what is no number") {
  const std::vector<float> x{-INFINITY, -1e30f, -50.0f, -10.0f, -0.0f, 0.0f, 10.0f, 50.0f, 1e30f, NAN};
  const std::vector<float> expected{-0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 10.0f, 50.0f, 1e30f, NAN};
  for (const auto isa : available_isas()) {
    CAPTURE(isa_name(isa));
    for (const bool tanh : {false, true}) {
      std::vector<float> out(x.size());
      row_kernels(isa).gelu_forward_f32({x.size(), false, tanh, x.data(), nullptr, out.data()}, 0, 1);
      // −inf is 0 · inf in the plain formula, too
      for (size_t i = 1; i < x.size(); ++i) {
        CAPTURE(x[i]);
        if (std::isnan(expected[i])) CHECK(std::isnan(out[i]));
        else CHECK(std::fabs(out[i] - expected[i]) <= 1e-7f + 1e-5f * std::fabs(expected[i]));
      }
    }
  }
}
