#include "text/wordpiece.h"

#include <doctest/doctest.h>

#include <map>
#include <random>

#include "system/input_error.h"

using fastbert::WordPiece;

namespace {

std::vector<int32_t> ids(const WordPiece& wordpiece, const std::string& word) {
  std::vector<WordPiece::Piece> pieces;
  wordpiece.split(reinterpret_cast<const uint8_t*>(word.data()), word.size(), word.size(), pieces);
  std::vector<int32_t> result;
  for (const auto& piece : pieces) result.push_back(piece.id);
  return result;
}

// The rule, as the paper's appendix states it: the longest entry, again and again.
std::vector<int32_t> plain_ids(const std::vector<std::string>& vocab, int32_t unk, const std::string& word) {
  std::map<std::string, int32_t> known;
  for (size_t i = 0; i < vocab.size(); ++i) known[vocab[i]] = static_cast<int32_t>(i);
  std::vector<int32_t> result;
  for (size_t begin = 0; begin < word.size();) {
    size_t end = word.size();
    for (; end > begin; --end) {
      const auto found = known.find((begin ? "##" : "") + word.substr(begin, end - begin));
      if (found == known.end()) continue;
      result.push_back(found->second);
      break;
    }
    if (end == begin) return {unk};
    begin = end;
  }
  return result;
}

using Ids = std::vector<int32_t>;

}  // namespace

TEST_CASE("wordpiece: longest match first") {
  const WordPiece wordpiece({"[UNK]", "want", "##want", "##ed", "wa", "un", "runn", "##ing"}, 0, 100);
  CHECK(ids(wordpiece, "unwanted") == Ids{5, 2, 3});
  CHECK(ids(wordpiece, "running") == Ids{6, 7});
  CHECK(ids(wordpiece, "unwantedx") == Ids{0});
}

TEST_CASE("wordpiece: too long a word, the last of equal entries, empty entries, no [UNK]") {
  const WordPiece wordpiece({"a", "", "a", "##a", "##"}, -1, 3);
  CHECK(ids(wordpiece, "aaa") == Ids{2, 3, 3});
  CHECK_THROWS_AS(ids(wordpiece, "aaaa"), fastbert::InputError);
  CHECK_THROWS_AS(ids(wordpiece, "b"), fastbert::InputError);
  CHECK(ids(WordPiece({}, 7, 100), "a") == Ids{7});
}

TEST_CASE("wordpiece: random vocabularies and words against the plain rule") {
  std::mt19937 random(1);
  const auto text = [&](size_t longest, char letters) {
    std::string result(1 + random() % longest, 'a');
    for (char& c : result) c = static_cast<char>('a' + random() % static_cast<unsigned>(letters));
    return result;
  };
  for (int round = 0; round < 60; ++round) {
    const char letters = round % 2 ? 3 : 40;  // few letters: deep; many: more than 16 children
    std::vector<std::string> vocab{"[UNK]"};
    for (int i = 0; i < 300; ++i) vocab.push_back((random() % 2 ? "##" : "") + text(4, letters));
    const WordPiece wordpiece(vocab, 0, 100);
    for (int i = 0; i < 200; ++i) {
      const std::string word = text(12, letters);
      REQUIRE(ids(wordpiece, word) == plain_ids(vocab, 0, word));
    }
  }
}
