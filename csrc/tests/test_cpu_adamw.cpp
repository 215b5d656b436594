#include "cpu/adamw.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "twins.h"

using namespace fastbert;

namespace {

auto step_of(const AdamwKernels& k, float) { return k.step_f32; }
auto step_of(const AdamwKernels& k, Bf16) { return k.step_bf16; }
auto squares_of(const AdamwKernels& k, float) { return k.sum_of_squares_f32; }
auto squares_of(const AdamwKernels& k, Bf16) { return k.sum_of_squares_bf16; }

template <class E>
void compare(Isa isa) {
  const AdamwStep step{0.5f, 0.999f, 0.9f, 0.98f, 1e-2f, 1.5f, 1e-8f};
  for (const size_t size : {1, 3, 4, 7, 8, 15, 16, 17, 33, 130}) {
    CAPTURE(size);
    const auto grad = numbers<E>(size, 1);
    std::vector<float> weights[2], mean[2], square[2];
    std::vector<Bf16> image[2];
    double squares[2];
    for (const int plain : {0, 1}) {
      const AdamwKernels& kernels = plain ? adamw_kernels_scalar : adamw_kernels(isa);
      weights[plain] = numbers(2 * size, 2), mean[plain] = numbers(2 * size, 3), square[plain] = numbers(2 * size, 4);
      for (float& x : square[plain]) x = std::fabs(x);
      image[plain] = untouched<Bf16>(size);
      step_of(kernels, E{})(step, grad.data(), weights[plain].data(), mean[plain].data(), square[plain].data(),
                            image[plain].data(), size);
      step_of(kernels, E{})(step, grad.data(), weights[plain].data(), mean[plain].data(), square[plain].data(), nullptr,
                            size);
      squares[plain] = squares_of(kernels, E{})(grad.data(), size);
    }
    CHECK(difference(weights[0], weights[1]) <= 1e-5);  // the second halves were not for the kernels: no difference
    CHECK(difference(mean[0], mean[1]) <= 1e-5);
    CHECK(difference(square[0], square[1]) <= 1e-5);
    CHECK(difference(image[0], image[1]) <= kTwinsDiffer<Bf16>);
    CHECK(std::fabs(squares[0] - squares[1]) <= 1e-5 * squares[1]);
  }
}

}  // namespace

TEST_CASE("adamw: the step and the sum of squares of every instruction set are those of the plain loops") {
  for (const auto isa : vector_isas()) {
    CAPTURE(isa_name(isa));
    compare<float>(isa);
    compare<Bf16>(isa);
  }
}
