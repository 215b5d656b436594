// Greedy longest-match-first splitting of a normalised word into vocabulary entries.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fastbert {

// A byte trie of the vocabulary with two roots: words' beginnings, and continuations (entries "##x", without the "##").
// Of equal entries the last wins. Immutable after construction, hence shared by all threads.
class WordPiece {
 public:
  struct Piece {
    int32_t id;
    uint32_t end;  // exclusive, in bytes of the word; the piece begins where the one before ends
  };

  // unk_id < 0: the vocabulary has no [UNK], and meeting an unknown word throws InputError.
  WordPiece(const std::vector<std::string>& vocab, int32_t unk_id, size_t max_chars);

  // Replaces `pieces` by the pieces of one word. A word of more than max_chars characters, or without a match
  // somewhere, is one [UNK].
  void split(const uint8_t* word, size_t num_bytes, size_t num_chars, std::vector<Piece>& pieces) const;

  size_t max_chars() const { return max_chars_; }

 private:
  static constexpr uint32_t kNone = 0, kWordRoot = 1, kContinuationRoot = 2;

  uint32_t child(uint32_t node, uint8_t byte) const;
  uint32_t add_child(uint32_t node, uint8_t byte);
  void add(uint32_t root, const std::string& text, size_t begin, int32_t id);
  void grow();
  void unknown(const uint8_t* word, size_t num_bytes, std::vector<Piece>& pieces) const;

  // Open addressing. A slot is edge << 28 | child, the edge being node << 8 | byte (36 bits); 0 is free.
  std::vector<uint64_t> slots_;
  size_t slot_mask_ = 0;
  std::vector<int32_t> ids_;  // by node; -1: no entry ends here
  int32_t unk_id_;
  size_t max_chars_;
};

}  // namespace fastbert
