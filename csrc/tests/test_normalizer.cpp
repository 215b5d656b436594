#include "text/normalizer.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace fastbert;

namespace {

struct Word {
  std::string text;
  size_t num_chars;
  bool operator==(const Word& other) const { return text == other.text && num_chars == other.num_chars; }
};

std::vector<Word> words(const std::string& text, NormalizerOptions options = {}, size_t limit = Normalizer::kNoLimit) {
  std::vector<Word> result;
  Normalizer(options).words(
      reinterpret_cast<const uint8_t*>(text.data()), text.size(),
      [&](const uint8_t* word, size_t size, size_t chars) {
        result.push_back({{word, word + size}, chars});
      },
      limit);
  return result;
}

}  // namespace

TEST_CASE("normalizer: lower case, accents, punctuation, ideographs, controls") {
  CHECK(words(" H\u00e9LLo!x\u6f22y\u200bz ") ==
        std::vector<Word>{{"hello", 5}, {"!", 1}, {"x", 1}, {"\u6f22", 1}, {"yz", 2}});
  NormalizerOptions cased{false, false, true, true};
  CHECK(words("H\u00e9LLo", cased) == std::vector<Word>{{"H\u00e9LLo", 5}});
  CHECK(words("").empty());
  CHECK(words(std::string("\0 \0", 3)).empty());
}

TEST_CASE("normalizer: marks that survive are ordered, starters stop them") {
  // U+302E has class 224 and U+1B44 class 9; both survive
  CHECK(words("a\u302e\u1b44") == std::vector<Word>{{"a\u1b44\u302e", 3}});
  CHECK(words("a\u302e"
              "b\u1b44") == std::vector<Word>{{"a\u302e"
                                               "b\u1b44",
                                               4}});
}

TEST_CASE("normalizer: beyond the limit nothing is stored, and the count says so") {
  const auto cut = words(std::string(1000, 'a') + " b", {}, 5);
  REQUIRE(cut.size() == 2);
  CHECK(cut[0] == Word{"aaaaa", 6});
  CHECK(cut[1] == Word{"b", 1});
}

TEST_CASE("normalizer: aligned words say where they came from") {
  std::vector<uint32_t> sources;
  const std::string text = "x\u00c9\u0301y";
  Normalizer(NormalizerOptions{})
      .aligned_words(reinterpret_cast<const uint8_t*>(text.data()), text.size(), 10,
                     [&](const uint8_t* word, size_t size, size_t chars, const uint32_t* from) {
                       CHECK(std::string(word, word + size) == "xey");
                       sources.assign(from, from + chars);
                     });
  CHECK(sources == std::vector<uint32_t>{10, 11, 13});
}
