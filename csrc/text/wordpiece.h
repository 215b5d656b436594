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
  // The children of a node are neighbours, so that one comparison finds the right one among 16. Behind them follow
  // the children of the first of them, and so on: far from the roots, where a node has one child, a word stays in the
  // same cache lines.
  struct Node {
    uint32_t first_child = 0, num_children = 0;
    int32_t id = -1;  // -1: no entry ends here
  };
  static constexpr uint32_t kNone = 0;  // a root is nobody's child
  static constexpr uint32_t kWordRoot = 0, kContinuationRoot = 1, kNumRoots = 2;

  uint32_t child(uint32_t node, uint8_t byte) const;
  void unknown(const uint8_t* word, size_t num_bytes, std::vector<Piece>& pieces) const;

  std::vector<Node> nodes_;
  std::vector<uint8_t> labels_;  // by node: the byte that leads to it; padded for 16 bytes at once
  uint32_t root_children_[kNumRoots][256] = {};
  int32_t unk_id_;
  size_t max_chars_;
};

}  // namespace fastbert
