#include "cpu/dropout.h"

#include <doctest/doctest.h>

#include <vector>

#include "twins.h"

using namespace fastbert;

namespace {

auto rows_of(const DropoutKernels& k, float) { return k.rows_f32; }
auto rows_of(const DropoutKernels& k, Bf16) { return k.rows_bf16; }

template <class E>
std::vector<E> dropped(const DropoutKernels& kernels, size_t width, bool biased) {
  const auto x = numbers<E>(3 * width, 1);
  const auto bias = numbers(width, 2);
  auto out = untouched<E>(3 * width);
  rows_of(kernels, E{})({width, x.data(), biased ? bias.data() : nullptr, out.data(), {7, dropout_threshold(0.25f)}}, 0,
                        3);
  return out;
}

template <class E>
void compare(Isa isa) {
  for (const size_t width : {1, 3, 4, 7, 8, 15, 16, 17, 130, 600}) {
    CAPTURE(width);
    for (const bool biased : {false, true}) {
      const auto found = dropped<E>(dropout_kernels(isa), width, biased);
      const auto plain = dropped<E>(dropout_scalar, width, biased);
      CHECK(difference(found, plain) == 0.0);  // the same draws, and one sum and one product an element
      if (width < 100) continue;
      size_t zeros = 0;
      for (size_t i = 0; i < 3 * width; ++i) zeros += to_float(found[i]) == 0.0f;
      CHECK(static_cast<double>(zeros) / (3.0 * static_cast<double>(width)) == doctest::Approx(0.25).epsilon(0.3));
    }
  }
}

}  // namespace

TEST_CASE("dropout: every instruction set drops what the plain loop drops") {
  for (const auto isa : vector_isas()) {
    CAPTURE(isa_name(isa));
    compare<float>(isa);
    compare<Bf16>(isa);
  }
}
