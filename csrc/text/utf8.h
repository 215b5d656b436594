// UTF-8 in and out, never trusting the input.
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastbert {

constexpr uint32_t kReplacement = 0xFFFD;

// Reads one code point at p (p < end) and moves p past it. Ill-formed bytes give U+FFFD for each maximal subpart, as
// CPython's errors="replace" does (Unicode Standard, table 3-7: the second byte's range depends on the first).
inline uint32_t decode_utf8(const uint8_t*& p, const uint8_t* end) {
  const uint32_t lead = *p++;
  if (lead < 0x80) return lead;
  if (lead < 0xC2 || lead > 0xF4) return kReplacement;
  const int extra = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  uint32_t low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;   // overlong
  if (lead == 0xED) high = 0x9F;  // surrogates
  if (lead == 0xF0) low = 0x90;   // overlong
  if (lead == 0xF4) high = 0x8F;  // beyond U+10FFFF
  uint32_t code_point = lead & (0x3F >> extra);
  for (int i = 0; i < extra; ++i) {
    if (p == end || *p < low || *p > high) return kReplacement;
    code_point = (code_point << 6) | (*p++ & 0x3F);
    low = 0x80, high = 0xBF;
  }
  return code_point;
}

// Writes a code point (not a surrogate, at most U+10FFFF) and returns its length, 1 to 4. `out` needs 4 bytes.
inline int encode_utf8(uint32_t code_point, uint8_t* out) {
  if (code_point < 0x80) {
    out[0] = static_cast<uint8_t>(code_point);
    return 1;
  }
  const int length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
  for (int i = length - 1; i > 0; --i, code_point >>= 6) out[i] = static_cast<uint8_t>(0x80 | (code_point & 0x3F));
  constexpr uint8_t kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  out[0] = static_cast<uint8_t>(kLead[length] | code_point);
  return length;
}

// True for a byte that does not start a character.
inline bool is_utf8_continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

}  // namespace fastbert
