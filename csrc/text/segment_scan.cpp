// The plain C++ loop, and the choice among loops.
#include "text/segment_scan.h"

#include <cstring>
#include <stdexcept>

#define FASTBERT_TARGET

namespace fastbert {
namespace {

struct Simd {
  struct Tables {
    explicit Tables(const SegmentClasses& classes) : by_byte(classes.by_byte), lowercase(classes.lowercase) {}
    const uint8_t* by_byte;
    bool lowercase;
  };

  static void classify(const Tables& tables, const uint8_t* block, uint64_t& blank, uint64_t& punctuation) {
    blank = punctuation = 0;
    for (int i = 0; i < 64; ++i) {
      const uint64_t kind = tables.by_byte[block[i]];
      blank |= (kind & 1) << i;
      punctuation |= (kind >> 1) << i;
    }
  }

  static void store_key(const Tables& tables, const uint8_t* p, size_t length, uint64_t* key) {
    key[0] = key[1] = 0;
    auto* bytes = reinterpret_cast<uint8_t*>(key);
    std::memcpy(bytes, p, length);
    if (tables.lowercase)
      for (int i = 0; i < 2; ++i) key[i] = lower(key[i]);
    bytes[15] = static_cast<uint8_t>(length);
  }

  // ASCII upper to lower case in all eight bytes at once; bytes from 128 on are left alone.
  static uint64_t lower(uint64_t word) {
    constexpr uint64_t kOnes = 0x0101010101010101ull;
    const uint64_t low7 = word & (0x7F * kOnes);
    const uint64_t from_a = low7 + (0x80 - 'A') * kOnes, past_z = low7 + (0x80 - 'Z' - 1) * kOnes;
    const uint64_t upper = (from_a & ~past_z & ~word) & (0x80 * kOnes);
    return word + (upper >> 2);
  }

  static bool equal(const uint64_t* key, const uint64_t* other) {
    return ((key[0] ^ other[0]) | (key[1] ^ other[1])) == 0;
  }

  template <class Slot>
  static void store_ids(int32_t* out, const Slot& slot) {
    for (size_t i = 0; i < Slot::kMaxIds; ++i) out[i] = static_cast<int32_t>(slot.ids[i]);
  }
};

}  // namespace
}  // namespace fastbert

#include "text/segment_scan_loop.h"

namespace fastbert {

SegmentClasses::SegmentClasses(const NormalizerOptions& options) : lowercase(options.lowercase) {
  for (int c = 0; c < 128; ++c) {
    const bool blank =
        c == ' ' || c == '\t' || c == '\n' || c == '\r' || (!options.clean_text && (c == 0x0B || c == 0x0C));
    const bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    const bool punctuation = options.split_punctuation && c > ' ' && c < 0x7F && !alphanumeric;
    by_byte[c] = static_cast<uint8_t>(blank | punctuation << 1);
    if (blank) blank_by_low[c & 15] |= static_cast<uint8_t>(1 << (c >> 4));
    if (punctuation) punctuation_by_low[c & 15] |= static_cast<uint8_t>(1 << (c >> 4));
  }
}

template <class Id>
SegmentScan<Id> segment_scan_scalar() {
  return &scan<Id>;
}

template <class Id>
SegmentScan<Id> segment_scan(SimdLevel level) {
  switch (level) {
    case SimdLevel::kScalar: return segment_scan_scalar<Id>();
#ifdef FASTBERT_NEON
    case SimdLevel::kNeon: return segment_scan_neon<Id>();
#endif
#ifdef FASTBERT_X86
    case SimdLevel::kAvx2: return segment_scan_avx2<Id>();
    case SimdLevel::kAvx512: return segment_scan_avx512<Id>();
#endif
    default: throw std::invalid_argument("no code for this instruction set in this binary");
  }
}
template SegmentScan<uint16_t> segment_scan<uint16_t>(SimdLevel level);
template SegmentScan<uint32_t> segment_scan<uint32_t>(SimdLevel level);

}  // namespace fastbert
