// What is the same of linear.h's digits on every instruction set: weights, and a block's scale.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>

namespace fastbert {

// `count` weights of one block as digits from -top to top; their scale, and scale · their sum.
template <class Digit>
void weight_digits(const float* weight, size_t count, int top, Digit* digits, float* scale, float* total) {
  float largest = 0.0f, all = 0.0f;
  for (size_t k = 0; k < count; ++k) {
    largest = std::max(largest, std::abs(weight[k]));
    all += weight[k] * 0.0f;  // not a number where a weight is none
  }
  *scale = largest / static_cast<float>(top) + all;
  int sum = 0;
  for (size_t k = 0; k < count; ++k) {
    const float digit = largest > 1e-30f && all == 0.0f ? std::nearbyint(weight[k] / *scale) : 0.0f;
    digits[k] = static_cast<Digit>(digit);
    sum += static_cast<int>(digit);
  }
  *total = *scale * static_cast<float>(sum);
}

struct BlockScale {
  float scale, inverse;
};
// of values from `low` to `high`, digits from 0 to `top`; `all`: 0, or not a number where a value is none
inline BlockScale block_scale(float low, float high, float all, int top) {
  const float scale = (high - low) / static_cast<float>(top) + all;
  return {scale, scale > 1e-30f && scale < 1e30f ? 1.0f / scale : 0.0f};
}

}  // namespace fastbert
