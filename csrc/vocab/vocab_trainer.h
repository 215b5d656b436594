// Learns a WordPiece vocabulary from word counts: merges of the commonest pair of neighbouring pieces.
// The rule, to the byte, is written in fastbert/text/vocab_trainer.py.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "vocab/code_point_map.h"
#include "vocab/count_table.h"
#include "vocab/pair_merger.h"

namespace fastbert {

struct VocabOptions {
  size_t vocab_size = 8192;
  int64_t min_frequency = 2;
  size_t limit_alphabet = 4096;
  std::vector<uint32_t> initial_alphabet;  // code points, each once
  std::vector<std::string> special_tokens;
};

struct Vocab {
  std::vector<std::string> tokens;  // in the order of their ids
  size_t num_fixed = 0;             // special tokens, alphabet and "##" forms; may exceed vocab_size
  size_t num_characters = 0;        // of the words and the initial alphabet
  size_t num_dropped = 0;           // characters beyond limit_alphabet
};

class VocabTrainer {
 public:
  // Keeps nothing of `words`, which are UTF-8. Throws std::overflow_error when the pieces of the words, times their
  // counts, are more than 2^63 - 1.
  VocabTrainer(const CountTable& words, const VocabOptions& options);

  // To be called once. progress(pieces so far) is called ten times a second and may throw.
  Vocab learn(const std::function<void(size_t)>& progress = nullptr);

 private:
  // ids of a character as the first of a word and as a following one
  struct CharacterIds {
    CodePointMap<uint32_t> first, following;
  };

  std::vector<uint32_t> choose_alphabet(const CountTable& words);
  CharacterIds number_characters(const CountTable& words, const std::vector<uint32_t>& alphabet);
  uint32_t add_piece(const std::string& piece);

  VocabOptions options_;
  Vocab vocab_;
  std::unordered_map<std::string, uint32_t> ids_;
  PairMerger merger_;
};

}  // namespace fastbert
