// Learning: any words with any counts give the same vocabulary in any order, without a piece twice, and the merges are
// those of the plain rule.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../tests/plain_merger.h"
#include "vocab/vocab_trainer.h"

namespace {

using Words = std::vector<std::pair<std::string, int64_t>>;

// Lines "<count byte><word bytes>"; ill-formed words are as good as any here.
Words read_words(const uint8_t* data, size_t size) {
  Words words;
  const uint8_t* const end = data + size;
  while (data < end) {
    const uint8_t* const line_end = std::find(data, end, '\n');
    if (line_end - data > 1) words.emplace_back(std::string(data + 1, line_end), int64_t{1} << (*data % 40));
    data = line_end == end ? end : line_end + 1;
  }
  return words;
}

fastbert::Vocab learn(const Words& words, const fastbert::VocabOptions& options) {
  fastbert::CountTable table;
  for (const auto& [word, count] : words) table.add(reinterpret_cast<const uint8_t*>(word.data()), word.size(), count);
  return fastbert::VocabTrainer(table, options).learn();
}

void check_merges(const Words& words) {
  fastbert::PlainMerger plain;
  fastbert::PairMerger merger;
  for (const auto& [word, count] : words) {
    if (word.size() < 2 || word.size() > 40 || plain.words.size() >= 20) continue;
    plain.words.emplace_back(word.begin(), word.end());
    for (uint32_t& piece : plain.words.back()) piece &= 3;
    plain.counts.push_back(count);
    merger.add_word(plain.words.back(), count);
  }
  merger.finish_words();
  for (uint32_t merged = 4; merged < 100; ++merged) {
    const auto expected = plain.best(), got = merger.best();
    if (got.count != expected.count || got.left != expected.left || got.right != expected.right) std::abort();
    if (got.count == 0) break;
    plain.merge(expected, merged);
    merger.merge(got, merged);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  fastbert::VocabOptions options;
  options.vocab_size = 1 + data[0];
  options.min_frequency = 1 + data[1] % 8;
  options.limit_alphabet = data[1] / 8;
  if (data[2] % 2) options.initial_alphabet = {'a', 0x10FFFF};
  if (data[2] % 4 > 1) options.special_tokens = {"[UNK]", "a", "##b", "ab"};
  Words words = read_words(data + 3, size - 3);
  const fastbert::Vocab vocab = learn(words, options);
  if (vocab.tokens.size() > std::max(options.vocab_size, vocab.num_fixed)) std::abort();
  if (std::set<std::string>(vocab.tokens.begin(), vocab.tokens.end()).size() != vocab.tokens.size()) std::abort();
  check_merges(words);
  std::reverse(words.begin(), words.end());
  if (learn(words, options).tokens != vocab.tokens) std::abort();
  return 0;
}
