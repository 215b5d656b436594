#include "cpu/elementwise.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

using fastbert::Bf16;

TEST_CASE("elementwise: conversions to and from bf16, on every instruction set, at any size") {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x{NAN, inf, -inf, 0.0f, -0.0f, 1e-40f, 1.00390625f, 1.01171875f, 3.4e38f};  // also ties, denormals
  std::mt19937 random(0);
  while (x.size() < 1000) {
    const auto bits = static_cast<uint32_t>(random());
    float value;
    std::memcpy(&value, &bits, sizeof value);
    x.push_back(value);
  }
  for (const auto isa : fastbert::available_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    for (const size_t size : {0, 1, 15, 16, 17, 63, 127, 1000}) {
      std::vector<Bf16> low(size + 1, Bf16{0x1234});
      std::vector<float> back(size + 1, 7.0f);
      fastbert::elementwise(isa).to_bf16(x.data(), low.data(), size);
      fastbert::elementwise(isa).to_float(low.data(), back.data(), size);
      for (size_t i = 0; i < size; ++i) {
        if (std::isnan(x[i])) {
          REQUIRE(std::isnan(back[i]));
        } else {
          REQUIRE(low[i].bits == fastbert::to_bf16(x[i]).bits);
          REQUIRE(back[i] == fastbert::to_float(low[i]));
        }
      }
      REQUIRE(low[size].bits == 0x1234);
      REQUIRE(back[size] == 7.0f);
    }
  }
}

TEST_CASE("elementwise: exp is within two units in the last place") {
  std::vector<float> x;
  for (int i = 0; i <= 20000; ++i) x.push_back(-87.3f + 167.3f * static_cast<float>(i) / 20000.0f);
  const size_t ordinary = x.size();
  for (const float low : {-std::numeric_limits<float>::infinity(), -1e30f, -104.0f, -88.0f}) x.push_back(low);
  for (const auto isa : fastbert::available_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    std::vector<float> out(x.size(), NAN);
    fastbert::elementwise(isa).exp(x.data(), out.data(), x.size());
    for (size_t i = 0; i < ordinary; ++i) {
      const double exact = std::exp(double{x[i]});
      REQUIRE(std::fabs(out[i] - exact) / exact < 2 * std::ldexp(1.0, -23));
    }
    for (size_t i = ordinary; i < x.size(); ++i) REQUIRE(out[i] == 0.0f);
  }
}
