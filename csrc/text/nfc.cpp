#include "text/nfc.h"

#include <algorithm>
#include <vector>

#include "tables/nfc_table.h"
#include "text/unicode.h"

namespace fastbert {
namespace {

// Combining marks begin here; everything before is in NFC.
constexpr uint32_t kFirst = 0x300;
constexpr size_t kBlock = 32;

// One bit per code point.
std::vector<uint64_t> build_bits() {
  std::vector<uint64_t> bits(kNumCodePoints / 64);
  for (const CodePointRange& range : kMayChangeInNfc)
    for (uint32_t c = range.first; c <= range.last; ++c) bits[c / 64] |= uint64_t{1} << (c % 64);
  return bits;
}

}  // namespace

template <class Unit>
bool may_change_in_nfc(const Unit* text, size_t size) {
  static const std::vector<uint64_t> table = build_bits();
  const uint64_t* const bits = table.data();
  for (size_t begin = 0; begin < size; begin += kBlock) {
    const size_t end = std::min(begin + kBlock, size);
    Unit above = 0;  // without a branch, so that compilers vectorize it
    for (size_t i = begin; i < end; ++i) above = static_cast<Unit>(above | (text[i] >= kFirst));
    if (!above) continue;
    for (size_t i = begin; i < end; ++i) {
      const uint32_t c = text[i];
      if (c < kNumCodePoints && (bits[c / 64] >> (c % 64) & 1)) return true;
    }
  }
  return false;
}

template bool may_change_in_nfc(const uint16_t* text, size_t size);
template bool may_change_in_nfc(const uint32_t* text, size_t size);

}  // namespace fastbert
