// What the tokenizer needs to know about a code point. Every answer is the reference tokenizer's (csrc/tables).
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastbert {

constexpr uint32_t kNumCodePoints = 0x110000;

enum CodePointFlags : uint16_t {
  kFlagRemoved = 1 << 8,       // deleted by clean_text
  kFlagCleanSpace = 1 << 9,    // a space after clean_text
  kFlagWhiteSpace = 1 << 10,   // separates words
  kFlagPunctuation = 1 << 11,  // a word of its own
  kFlagIdeograph = 1 << 12,    // padded with spaces by handle_chinese_chars
  kFlagNonspacing = 1 << 13,   // dropped by strip_accents
  kFlagLower = 1 << 14,        // lower_case() gives something else
  kFlagDecomposes = 1 << 15,   // decompose() gives something else
};

// One uint16 per code point: CodePointFlags, and the canonical combining class in the low byte.
// Built from the generated tables on first use.
const uint16_t* code_point_facts();

// Lower case without context (no final sigma). Writes 1 or 2 code points to `out` and returns how many.
int lower_case(uint32_t code_point, uint32_t* out);

// Full canonical decomposition. Writes 1 to 4 code points to `out` and returns how many.
int decompose(uint32_t code_point, uint32_t* out);

}  // namespace fastbert
