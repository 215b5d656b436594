#include "text/utf8.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace {

std::vector<uint32_t> decode_all(const std::string& text) {
  std::vector<uint32_t> result;
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* const end = p + text.size();
  while (p < end) result.push_back(fastbert::decode_utf8(p, end));
  return result;
}

constexpr uint32_t kBad = fastbert::kReplacement;

}  // namespace

TEST_CASE("utf8: every scalar value goes out and comes back") {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    uint8_t bytes[4];
    const int length = fastbert::encode_utf8(c, bytes);
    const uint8_t* p = bytes;
    REQUIRE(fastbert::decode_utf8(p, bytes + length) == c);
    REQUIRE(p == bytes + length);
  }
}

TEST_CASE("utf8: one replacement for each maximal subpart, as CPython gives") {
  using Points = std::vector<uint32_t>;
  CHECK(decode_all("\x80") == Points{kBad});
  CHECK(decode_all("\xC0\x80") == Points{kBad, kBad});            // overlong
  CHECK(decode_all("\xE0\x80\x80") == Points{kBad, kBad, kBad});  // overlong
  CHECK(decode_all("\xED\xA0\x80") == Points{kBad, kBad, kBad});  // a surrogate
  CHECK(decode_all("\xF0\x9F\x98") == Points{kBad});              // cut short
  CHECK(decode_all("\xE6\xBC") == Points{kBad});                  // cut short
  CHECK(decode_all("\xE6\xBC"
                   "a") == Points{kBad, 'a'});
  CHECK(decode_all("\xF4\x90\x80\x80") == Points{kBad, kBad, kBad, kBad});  // past U+10FFFF
  CHECK(decode_all("\xF5"
                   "a\xFF") == Points{kBad, 'a', kBad});
  CHECK(decode_all("\xC3\xC3\xA9") == Points{kBad, 0xE9});
}
