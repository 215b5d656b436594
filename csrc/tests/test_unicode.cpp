#include "text/unicode.h"

#include <doctest/doctest.h>

#include <vector>

using namespace fastbert;

namespace {

std::vector<uint32_t> lower(uint32_t c) {
  uint32_t out[2];
  const int count = lower_case(c, out);
  return {out, out + count};
}

std::vector<uint32_t> nfd(uint32_t c) {
  uint32_t out[4];
  const int count = decompose(c, out);
  return {out, out + count};
}

using Points = std::vector<uint32_t>;

}  // namespace

TEST_CASE("unicode: lower case has no context and one expansion") {
  CHECK(lower('A') == Points{'a'});
  CHECK(lower(0x3A3) == Points{0x3C3});
  CHECK(lower(0x130) == Points{'i', 0x307});
  CHECK(lower(0x1E9E) == Points{0xDF});
  CHECK(lower(0x100) == Points{0x101});  // a run of step 2
  CHECK(lower(0x101) == Points{0x101});
}

TEST_CASE("unicode: decompositions are full, Hangul by arithmetic") {
  CHECK(nfd(0xE9) == Points{'e', 0x301});
  CHECK(nfd(0x1EA4) == Points{'A', 0x302, 0x301});
  CHECK(nfd(0xAC00) == Points{0x1100, 0x1161});
  CHECK(nfd(0xAC01) == Points{0x1100, 0x1161, 0x11A8});
  CHECK(nfd(0xD7A3) == Points{0x1112, 0x1175, 0x11C2});
  CHECK(nfd(0xF900) == Points{0x8C48});
}

TEST_CASE("unicode: the reference's versions, not today's") {
  const uint16_t* facts = code_point_facts();
  CHECK((facts[0x2B820] & kFlagIdeograph) == 0);  // its range starts at 2B920
  CHECK((facts[0x2B920] & kFlagIdeograph) != 0);
  CHECK((facts[0x378] & kFlagRemoved) == 0);  // unassigned characters are kept
  CHECK((facts[0x890] & kFlagRemoved) == 0);  // a format character newer than Unicode 8
  CHECK((facts[0x1734] & kFlagNonspacing) != 0);
  CHECK((facts[0x8D4] & 255) == 230);  // Unicode 9
  CHECK((facts[0x898] & 255) == 0);    // Unicode 14
  CHECK((facts['$'] & kFlagPunctuation) != 0);
  CHECK((facts[0x20AC] & kFlagPunctuation) == 0);
}

TEST_CASE("unicode: facts and functions agree for every code point") {
  const uint16_t* facts = code_point_facts();
  for (uint32_t c = 0; c < kNumCodePoints; ++c) {
    REQUIRE((lower(c) != Points{c}) == ((facts[c] & kFlagLower) != 0));
    REQUIRE((nfd(c) != Points{c}) == ((facts[c] & kFlagDecomposes) != 0));
    for (const uint32_t part : nfd(c)) REQUIRE(nfd(part) == Points{part});
  }
}
