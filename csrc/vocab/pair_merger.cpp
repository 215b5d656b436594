#include "vocab/pair_merger.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace fastbert {

void PairMerger::add_word(const std::vector<uint32_t>& pieces, int64_t count) {
  if (words_.size() >= kNone) throw std::length_error("more than 2^32 - 1 distinct words");
  const auto word = static_cast<uint32_t>(words_.size());
  words_.push_back({pieces_.size(), pieces.size(), count});
  pieces_.insert(pieces_.end(), pieces.begin(), pieces.end());
  for (size_t i = 1; i < pieces.size(); ++i) add(pieces[i - 1], pieces[i], word);
}

PairMerger::Best PairMerger::best() {
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Entry entry = heap_.back();
    heap_.pop_back();
    const int64_t count = pairs_[find(entry.key)->pair_plus_one - 1].count;
    if (count == entry.count) return {static_cast<uint32_t>(entry.key >> 32), static_cast<uint32_t>(entry.key), count};
    if (count > 0 && count < entry.count) {
      heap_.push_back({count, entry.key});
      std::push_heap(heap_.begin(), heap_.end());
    }
  }
  return {0, 0, 0};
}

void PairMerger::finish_words() {
  finish_step();
  // the first step is the biggest by far
  risen_.shrink_to_fit();
  found_.shrink_to_fit();
}

void PairMerger::merge(const Best& pair, uint32_t merged) {
  Pair& facts = pairs_[find(key(pair.left, pair.right))->pair_plus_one - 1];
  uint32_t list = facts.lists;
  facts.lists = kNone;
  for (; list != kNone; list = lists_[list].next) {
    const List words = lists_[list];
    for (size_t i = 0; i < words.length; ++i)
      merge_in_word(list_words_[words.offset + i], pair.left, pair.right, merged);
  }
  finish_step();
}

void PairMerger::merge_in_word(uint32_t word, uint32_t left, uint32_t right, uint32_t merged) {
  uint32_t* const pieces = pieces_.data() + words_[word].offset;
  const auto length = static_cast<uint32_t>(words_[word].length);
  uint32_t in = 0;
  while (in + 1 < length && !(pieces[in] == left && pieces[in + 1] == right)) ++in;
  if (in + 1 >= length) return;
  // the word is written over itself; `previous` is the piece that stood before `in`
  uint32_t out = in;
  uint32_t previous = in > 0 ? pieces[in - 1] : 0;
  bool after_merge = false;
  while (in < length) {
    if (in + 1 < length && pieces[in] == left && pieces[in + 1] == right) {
      if (in > 0) {
        remove(previous, left, word);
        add(pieces[out - 1], merged, word);
      }
      remove(left, right, word);
      previous = right;
      after_merge = true;
      pieces[out++] = merged;
      in += 2;
    } else {
      const uint32_t piece = pieces[in++];
      if (after_merge) {
        remove(previous, piece, word);
        add(merged, piece, word);
      }
      previous = piece;
      after_merge = false;
      pieces[out++] = piece;
    }
  }
  words_[word].length = out & 255;
}

void PairMerger::add(uint32_t left, uint32_t right, uint32_t word) {
  Slot* slot = find(key(left, right));
  if (!slot->pair_plus_one) {
    if (pairs_.size() >= kNone - 1) throw std::length_error("more than 2^32 - 2 distinct pairs of pieces");
    if (4 * (pairs_.size() + 1) > 3 * slots_.size()) {
      grow();
      slot = find(key(left, right));
    }
    pairs_.emplace_back();
    *slot = {key(left, right), static_cast<uint32_t>(pairs_.size())};
  }
  const uint32_t index = slot->pair_plus_one - 1;
  Pair& pair = pairs_[index];
  pair.count += words_[word].count;
  if (pair.step != step_) {
    pair.step = step_;
    pair.num_words = 0;
    pair.last_word = kNone;
    risen_.push_back(slot->key);
  }
  if (pair.last_word == word) return;
  pair.last_word = word;
  ++pair.num_words;
  found_.push_back({index, word});
}

void PairMerger::remove(uint32_t left, uint32_t right, uint32_t word) {
  pairs_[find(key(left, right))->pair_plus_one - 1].count -= words_[word].count;
}

void PairMerger::finish_step() {
  for (const uint64_t risen : risen_) {
    Pair& pair = pairs_[find(risen)->pair_plus_one - 1];
    if (pair.count <= 0) continue;  // it fell again
    heap_.push_back({pair.count, risen});
    std::push_heap(heap_.begin(), heap_.end());
  }
  for (const uint64_t risen : risen_) {
    Pair& pair = pairs_[find(risen)->pair_plus_one - 1];
    if (lists_.size() >= kNone) throw std::length_error("more than 2^32 - 1 lists of words");
    lists_.push_back({list_words_.size(), pair.num_words, pair.lists});
    pair.lists = static_cast<uint32_t>(lists_.size() - 1);
    list_words_.resize(list_words_.size() + pair.num_words);
    pair.num_words = 0;
  }
  for (const Found& found : found_) {
    Pair& pair = pairs_[found.pair];
    list_words_[lists_[pair.lists].offset + pair.num_words++] = found.word;
  }
  risen_.clear();
  found_.clear();
  ++step_;
}

PairMerger::Slot* PairMerger::find(uint64_t key) {
  const size_t mask = slots_.size() - 1;
  uint64_t hash = key * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    Slot& slot = slots_[i];
    if (!slot.pair_plus_one || slot.key == key) return &slot;
  }
}

void PairMerger::grow() {
  std::vector<Slot> old(2 * slots_.size());
  old.swap(slots_);
  for (const Slot& slot : old)
    if (slot.pair_plus_one) *find(slot.key) = slot;
}

}  // namespace fastbert
