// bfloat16 as it lies in memory, and its conversions one value at a time.
#pragma once
#include <cstdint>
#include <cstring>

namespace fastbert {

// The upper half of a float. A type of its own, so that no arithmetic happens on the bits by accident.
struct Bf16 {
  uint16_t bits;
};

static inline float to_float(Bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
static inline float to_float(float x) { return x; }

// Rounds to nearest, ties to even, as torch does; NaN stays NaN.
static inline Bf16 to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return {0x7FC0};
  return {static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)};
}

}  // namespace fastbert
