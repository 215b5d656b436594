#include "vocab/vocab_trainer.h"

#include <doctest/doctest.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

using fastbert::CountTable;
using fastbert::Vocab;
using fastbert::VocabOptions;
using fastbert::VocabTrainer;

namespace {

using Tokens = std::vector<std::string>;
using Words = std::vector<std::pair<std::string, int64_t>>;

Vocab learn(const Words& words, const VocabOptions& options) {
  CountTable table;
  for (const auto& [word, count] : words) table.add(reinterpret_cast<const uint8_t*>(word.data()), word.size(), count);
  return VocabTrainer(table, options).learn();
}

VocabOptions options(size_t vocab_size, int64_t min_frequency = 1) {
  VocabOptions result;
  result.vocab_size = vocab_size;
  result.min_frequency = min_frequency;
  result.special_tokens = {"[UNK]"};
  return result;
}

}  // namespace

TEST_CASE("vocab trainer: merges by hand") {
  const Words words = {{"low", 5}, {"lo", 2}, {"new", 3}};
  const Tokens expected = {"[UNK]", "e", "l", "n", "o", "w", "##e", "##o", "##w", "lo", "low", "ne", "new"};
  const Vocab vocab = learn(words, options(100));
  CHECK(vocab.tokens == expected);
  CHECK(vocab.num_fixed == 9);
  CHECK(vocab.num_characters == 5);
  CHECK(vocab.num_dropped == 0);
  CHECK(learn(words, options(10)).tokens == Tokens(expected.begin(), expected.begin() + 10));
  CHECK(learn(words, options(100, 4)).tokens == Tokens(expected.begin(), expected.begin() + 11));
  // too small for the alphabet: the caller sees it from num_fixed
  CHECK(learn(words, options(3)).tokens.size() == 9);
}

TEST_CASE("vocab trainer: the alphabet is limited by frequency, then by code point") {
  VocabOptions limited = options(100);
  limited.limit_alphabet = 3;
  limited.initial_alphabet = {U'ç'};
  const Vocab vocab = learn({{"é", 5}, {"a", 4}, {"bz", 5}, {"z", 9}}, limited);
  // z 14, b and é 5: b first; "bz" is whole, é and a are gone
  CHECK(vocab.tokens == Tokens{"[UNK]", "b", "z", "ç", "##z", "bz"});
  CHECK(vocab.num_characters == 5);
  CHECK(vocab.num_dropped == 2);
}

TEST_CASE("vocab trainer: counts that are too big, nothing at all") {
  CHECK(learn({}, options(100)).tokens == Tokens{"[UNK]"});
  const int64_t largest = std::numeric_limits<int64_t>::max();
  CHECK_THROWS_AS(learn({{"ab", largest / 2 + 1}}, options(100)), std::overflow_error);
  CHECK(learn({{"ab", largest / 2}}, options(100)).tokens.back() == "ab");
}

TEST_CASE("vocab trainer: an exception in progress goes through") {
  CountTable table;
  std::string word(9, 'a');
  for (uint32_t i = 0; i < 60000; ++i) {
    for (size_t j = 0, rest = i * 2654435761u; j < word.size(); ++j, rest /= 11)
      word[j] = static_cast<char>('a' + rest % 11);
    table.add(reinterpret_cast<const uint8_t*>(word.data()), word.size(), 1 + i % 3);
  }
  VocabTrainer trainer(table, options(10000000));
  CHECK_THROWS_AS(trainer.learn([](size_t) { throw std::runtime_error("stop"); }), std::runtime_error);
}
