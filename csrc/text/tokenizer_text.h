// A piece of text as its owner stores it, and its UTF-8.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastbert {

// Not owned. Python keeps a str as 1, 2 or 4 bytes a character; files and Arrow columns hold UTF-8.
struct TextView {
  enum Kind : uint8_t { kUtf8, kLatin1, kUcs2, kUcs4 };
  const void* data = nullptr;
  size_t length = 0;  // in units of the kind
  Kind kind = kUtf8;
};

struct ByteSpan {
  const uint8_t* data;
  size_t size;
};

// The UTF-8 of a text: its own bytes where it is UTF-8 already, else written to `scratch` (grown, never shrunk).
// A lone surrogate throws InputError naming its place.
ByteSpan to_utf8(const TextView& text, std::vector<uint8_t>& scratch);

// The lines of a buffer, without their "\n"; a last line without one counts, an empty last line does not.
std::vector<TextView> split_lines(const uint8_t* data, size_t size);

}  // namespace fastbert
