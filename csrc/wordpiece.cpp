#include "wordpiece.h"

#include <algorithm>

#include "input_error.h"

namespace fastbert {
namespace {

constexpr int kChildBits = 28;
constexpr uint64_t kChildMask = (uint64_t{1} << kChildBits) - 1;
constexpr size_t kShownBytes = 60;

size_t hash(uint64_t edge) { return static_cast<size_t>((edge * 0x9E3779B97F4A7C15ull) >> 24); }

uint64_t edge_of(uint32_t node, uint8_t byte) { return uint64_t{node} << 8 | byte; }

}  // namespace

WordPiece::WordPiece(const std::vector<std::string>& vocab, int32_t unk_id, size_t max_chars)
    : slots_(1024), slot_mask_(slots_.size() - 1), ids_(kContinuationRoot + 1, -1), unk_id_(unk_id),
      max_chars_(max_chars) {
  for (size_t i = 0; i < vocab.size(); ++i) {
    const std::string& entry = vocab[i];
    if (entry.empty()) continue;
    add(kWordRoot, entry, 0, static_cast<int32_t>(i));
    if (entry.size() > 2 && entry[0] == '#' && entry[1] == '#') add(kContinuationRoot, entry, 2, static_cast<int32_t>(i));
  }
}

void WordPiece::add(uint32_t root, const std::string& text, size_t begin, int32_t id) {
  uint32_t node = root;
  for (size_t i = begin; i < text.size(); ++i) node = add_child(node, static_cast<uint8_t>(text[i]));
  ids_[node] = id;
}

uint32_t WordPiece::child(uint32_t node, uint8_t byte) const {
  const uint64_t edge = edge_of(node, byte);
  for (size_t i = hash(edge) & slot_mask_;; i = (i + 1) & slot_mask_) {
    const uint64_t slot = slots_[i];
    if (slot == 0) return kNone;
    if (slot >> kChildBits == edge) return static_cast<uint32_t>(slot & kChildMask);
  }
}

uint32_t WordPiece::add_child(uint32_t node, uint8_t byte) {
  if (const uint32_t known = child(node, byte)) return known;
  if (ids_.size() > kChildMask) throw InputError("the vocabulary is too large: more than 268 million bytes of entries");
  if (ids_.size() * 2 > slots_.size()) grow();
  const uint64_t edge = edge_of(node, byte);
  size_t i = hash(edge) & slot_mask_;
  while (slots_[i]) i = (i + 1) & slot_mask_;
  slots_[i] = edge << kChildBits | ids_.size();
  ids_.push_back(-1);
  return static_cast<uint32_t>(ids_.size() - 1);
}

void WordPiece::grow() {
  std::vector<uint64_t> old(slots_.size() * 2);
  old.swap(slots_);
  slot_mask_ = slots_.size() - 1;
  for (const uint64_t slot : old) {
    if (slot == 0) continue;
    size_t i = hash(slot >> kChildBits) & slot_mask_;
    while (slots_[i]) i = (i + 1) & slot_mask_;
    slots_[i] = slot;
  }
}

void WordPiece::unknown(const uint8_t* word, size_t num_bytes, std::vector<Piece>& pieces) const {
  if (unk_id_ < 0) {
    const std::string shown(reinterpret_cast<const char*>(word), std::min(num_bytes, kShownBytes));
    throw InputError("the vocabulary has no [UNK] and cannot write the word '" + shown +
                     "'. Remedy: add a line [UNK] to vocab.txt");
  }
  pieces.assign(1, Piece{unk_id_, static_cast<uint32_t>(num_bytes)});
}

void WordPiece::split(const uint8_t* word, size_t num_bytes, size_t num_chars, std::vector<Piece>& pieces) const {
  pieces.clear();
  if (num_chars > max_chars_) return unknown(word, num_bytes, pieces);
  for (size_t begin = 0; begin < num_bytes;) {
    uint32_t node = begin ? kContinuationRoot : kWordRoot;
    Piece longest{-1, 0};
    for (size_t i = begin; i < num_bytes; ++i) {
      node = child(node, word[i]);
      if (node == kNone) break;
      if (ids_[node] >= 0) longest = Piece{ids_[node], static_cast<uint32_t>(i + 1)};
    }
    if (longest.id < 0) return unknown(word, num_bytes, pieces);
    pieces.push_back(longest);
    begin = longest.end;
  }
}

}  // namespace fastbert
