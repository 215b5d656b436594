// What is the same of int8 products (linear.h) on every instruction set: the weights, and a block's scale.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>

namespace fastbert {

constexpr int kQuantTop = 255, kQuantWeightTop = 127;  // the greatest whole number of x, and of a weight

// `count` weights of one block as whole numbers of either sign; their scale, and scale · their sum.
template <class Whole>
void quantize_weights(const float* weight, size_t count, Whole* quantized, float* scale, float* total) {
  float largest = 0.0f, all = 0.0f;
  for (size_t k = 0; k < count; ++k) {
    largest = std::max(largest, std::abs(weight[k]));
    all += weight[k] * 0.0f;  // not a number where a weight is none
  }
  *scale = largest / static_cast<float>(kQuantWeightTop) + all;
  int sum = 0;
  for (size_t k = 0; k < count; ++k) {
    const float whole = largest > 1e-30f && all == 0.0f ? std::nearbyint(weight[k] / *scale) : 0.0f;
    quantized[k] = static_cast<Whole>(whole);
    sum += static_cast<int>(whole);
  }
  *total = *scale * static_cast<float>(sum);
}

struct BlockScale {
  float scale, inverse;
};
// Of values from `low` to `high`; `all`: 0, or not a number where a value is none.
inline BlockScale block_scale(float low, float high, float all) {
  const float scale = (high - low) / static_cast<float>(kQuantTop) + all;
  return {scale, scale > 1e-30f && scale < 1e30f ? 1.0f / scale : 0.0f};
}

}  // namespace fastbert
