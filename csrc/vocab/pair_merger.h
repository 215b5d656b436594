// The inner machine of the vocabulary trainer: words as rows of ids, and the counts of all pairs of neighbours.
//
// A pair knows the words it occurs in, or once did (lists of word numbers in one flat array). A heap holds at least one
// entry for every pair, with at least its count: counts that fell are noticed when they come to the top, counts that
// rose are pushed again.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastbert {

class PairMerger {
 public:
  struct Best {
    uint32_t left, right;
    int64_t count;  // 0: no pair is left
  };

  PairMerger() : slots_(1024) {}

  // A word of 2 to 255 pieces. The counts times the lengths must add up to 2^63 - 1 at the most.
  void add_word(const std::vector<uint32_t>& pieces, int64_t count);
  // To be called once, after the last word.
  void finish_words();

  // The pair with the highest count; ties: the smaller left id, then the smaller right one.
  Best best();
  // Makes one piece of the pair that best() just gave, everywhere, from left to right in each word. `merged` may be in
  // use already, but is neither of the pair's (its string is longer than theirs).
  void merge(const Best& pair, uint32_t merged);

 private:
  struct Word {
    uint64_t offset : 56;  // of its pieces in pieces_
    uint64_t length : 8;
    int64_t count;
  };
  struct Pair {
    int64_t count = 0;
    uint32_t lists = kNone;  // first of a chain in lists_
    uint32_t step = 0;       // the last one in which the count rose; what follows belongs to it
    uint32_t num_words = 0;  // words found in the step
    uint32_t last_word = kNone;
  };
  struct List {
    size_t offset;  // in list_words_
    uint32_t length, next;
  };
  struct Slot {
    uint64_t key;
    uint32_t pair_plus_one;  // 0: empty
  };
  struct Entry {
    int64_t count;
    uint64_t key;
    // the heap's order: the top is the highest count, then the smallest key
    bool operator<(const Entry& other) const { return count != other.count ? count < other.count : key > other.key; }
  };
  static constexpr uint32_t kNone = 0xFFFFFFFF;

  static uint64_t key(uint32_t left, uint32_t right) { return static_cast<uint64_t>(left) << 32 | right; }
  Slot* find(uint64_t key);
  void grow();
  void add(uint32_t left, uint32_t right, uint32_t word);
  void remove(uint32_t left, uint32_t right, uint32_t word);
  void merge_in_word(uint32_t word, uint32_t left, uint32_t right, uint32_t merged);
  void finish_step();

  std::vector<uint32_t> pieces_;
  std::vector<Word> words_;
  std::vector<Slot> slots_;  // hash table from key to pair: a power of two, never full
  std::vector<Pair> pairs_;
  std::vector<uint32_t> list_words_;
  std::vector<List> lists_;
  std::vector<Entry> heap_;
  // of the step going on: pairs whose count rose (by key), and where they were found
  uint32_t step_ = 1;
  std::vector<uint64_t> risen_;
  struct Found {
    uint32_t pair, word;
  };
  std::vector<Found> found_;
};

}  // namespace fastbert
