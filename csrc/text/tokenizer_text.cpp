#include "text/tokenizer_text.h"

#include <cstdio>
#include <cstring>

#include "system/input_error.h"
#include "text/utf8.h"

namespace fastbert {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080ull;

// How many of 8 bytes, in the order of memory, come before the first with its high bit set.
size_t num_low_bytes(uint64_t bytes) {
  return bytes & kHighBits ? static_cast<size_t>(__builtin_ctzll(bytes & kHighBits)) / 8 : 8;
}

// Writes the code point at `index` of a text, and refuses what UTF-8 cannot hold.
uint8_t* write_code_point(uint32_t code_point, size_t index, uint8_t* out) {
  if (code_point >= 0xD800 && code_point < 0xE000) {
    char message[128];
    std::snprintf(message, sizeof message,
                  "the text has a lone surrogate U+%04X at character %zu. Try: decode it again",
                  static_cast<unsigned>(code_point), index);
    throw InputError(message);
  }
  return out + encode_utf8(code_point, out);
}

template <class Unit>
size_t transcode(const Unit* units, size_t length, uint8_t* out) {
  constexpr size_t kRun = 16;
  constexpr uint32_t kLatinEnd = 0x250;  // of two bytes each beyond ASCII
  uint8_t* p = out;
  size_t i = 0;
  while (i + kRun < length) {
    // a run narrowed at once: the first unit beyond ASCII ends it, and what was written from there is overwritten
    uint8_t run[kRun];
    for (size_t k = 0; k < kRun; ++k) run[k] = static_cast<uint8_t>(units[i + k] < 0x80 ? units[i + k] : 0x80);
    std::memcpy(p, run, kRun);
    uint64_t halves[2];
    std::memcpy(halves, run, kRun);
    size_t num_ascii = num_low_bytes(halves[0]);
    if (num_ascii == 8) num_ascii += num_low_bytes(halves[1]);
    p += num_ascii;
    i += num_ascii;
    // In Latin script a letter with an accent stands alone among ASCII, nobody knows where: no branch on it. Other
    // scripts come in words.
    const auto code_point = static_cast<uint32_t>(units[i]);
    if (code_point < kLatinEnd) {
      const bool two_bytes = code_point >= 0x80;
      p[0] = static_cast<uint8_t>(two_bytes ? 0xC0 | code_point >> 6 : code_point);
      p[1] = static_cast<uint8_t>(0x80 | (code_point & 0x3F));
      p += 1 + two_bytes;
      ++i;
      continue;
    }
    do p = write_code_point(static_cast<uint32_t>(units[i]), i, p);
    while (++i < length && units[i] >= 0x80);
  }
  for (; i < length; ++i) p = write_code_point(static_cast<uint32_t>(units[i]), i, p);
  return static_cast<size_t>(p - out);
}

}  // namespace

ByteSpan to_utf8(const TextView& text, std::vector<uint8_t>& scratch) {
  if (text.kind == TextView::kUtf8) return {static_cast<const uint8_t*>(text.data), text.length};
  const size_t worst = text.kind == TextView::kLatin1 ? 2 : text.kind == TextView::kUcs2 ? 3 : 4;
  if (scratch.size() < text.length * worst) scratch.resize(text.length * worst);
  uint8_t* const out = scratch.data();
  size_t size = 0;
  if (text.kind == TextView::kLatin1) size = transcode(static_cast<const uint8_t*>(text.data), text.length, out);
  if (text.kind == TextView::kUcs2) size = transcode(static_cast<const uint16_t*>(text.data), text.length, out);
  if (text.kind == TextView::kUcs4) size = transcode(static_cast<const uint32_t*>(text.data), text.length, out);
  return {out, size};
}

std::vector<TextView> split_lines(const uint8_t* data, size_t size) {
  std::vector<TextView> lines;
  const uint8_t* const end = data + size;
  for (const uint8_t* p = data; p < end;) {
    const auto* newline = static_cast<const uint8_t*>(std::memchr(p, '\n', static_cast<size_t>(end - p)));
    if (!newline) newline = end;
    lines.push_back({p, static_cast<size_t>(newline - p), TextView::kUtf8});
    p = newline + 1;
  }
  return lines;
}

}  // namespace fastbert
