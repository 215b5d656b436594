#include "text/tokenizer_text.h"

#include <cstdio>
#include <cstring>

#include "system/input_error.h"
#include "text/utf8.h"

namespace fastbert {
namespace {

template <class Unit>
size_t transcode(const Unit* units, size_t length, uint8_t* out) {
  constexpr size_t kRun = 16;
  uint8_t* p = out;
  size_t looked_at = 0;  // runs are tried once at each of their beginnings
  for (size_t i = 0; i < length; ++i) {
    while (i >= looked_at && i + kRun <= length) {
      Unit any = 0;
      for (size_t k = 0; k < kRun; ++k) any = static_cast<Unit>(any | units[i + k]);
      looked_at = i + kRun;
      if (any >= 0x80) break;
      for (size_t k = 0; k < kRun; ++k) p[k] = static_cast<uint8_t>(units[i + k]);
      p += kRun;
      i += kRun;
    }
    if (i == length) break;
    const auto code_point = static_cast<uint32_t>(units[i]);
    if (code_point < 0x80) {
      *p++ = static_cast<uint8_t>(code_point);
      continue;
    }
    if (code_point >= 0xD800 && code_point < 0xE000) {
      char message[128];
      std::snprintf(message, sizeof message,
                    "the text has a lone surrogate U+%04X at character %zu. Try: decode it again",
                    static_cast<unsigned>(code_point), i);
      throw InputError(message);
    }
    p += encode_utf8(code_point, p);
  }
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
