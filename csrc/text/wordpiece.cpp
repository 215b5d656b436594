#include "text/wordpiece.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "system/input_error.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace fastbert {
namespace {

constexpr size_t kShownBytes = 60;
constexpr size_t kLabelPadding = 16;

struct Entry {
  Entry(std::string_view entry, int32_t entry_id) : text(entry), id(entry_id) {
    for (size_t i = 0; i < std::min(text.size(), sizeof first); ++i)
      first |= static_cast<uint64_t>(static_cast<uint8_t>(text[i])) << (56 - 8 * i);
  }
  // Most entries differ in their first 8 bytes; where these are equal (a short entry is padded with NULs), all count.
  bool operator<(const Entry& other) const {
    if (first != other.first) return first < other.first;
    return text != other.text ? text < other.text : id < other.id;
  }

  std::string_view text;
  uint64_t first = 0;  // 8 bytes, big-endian
  int32_t id;
};

// The entries below a node: a range of sorted entries that share their first `depth` bytes.
struct Subtree {
  size_t begin, end, depth;
  uint32_t node;
};

}  // namespace

WordPiece::WordPiece(const std::vector<std::string>& vocab, int32_t unk_id, size_t max_chars)
    : unk_id_(unk_id), max_chars_(max_chars) {
  std::vector<Entry> entries, continuations;
  for (size_t i = 0; i < vocab.size(); ++i) {
    const std::string_view text = vocab[i];
    const auto id = static_cast<int32_t>(i);
    if (!text.empty()) entries.emplace_back(text, id);
    if (text.size() > 2 && text[0] == '#' && text[1] == '#') continuations.emplace_back(text.substr(2), id);
  }
  std::sort(entries.begin(), entries.end());
  std::sort(continuations.begin(), continuations.end());
  const size_t num_words = entries.size();
  entries.insert(entries.end(), continuations.begin(), continuations.end());

  nodes_.resize(kNumRoots);
  labels_.resize(kNumRoots);
  std::vector<Subtree> waiting{{num_words, entries.size(), 0, kContinuationRoot}, {0, num_words, 0, kWordRoot}};
  while (!waiting.empty()) {
    const Subtree here = waiting.back();
    waiting.pop_back();
    size_t i = here.begin;
    for (; i < here.end && entries[i].text.size() == here.depth; ++i) nodes_[here.node].id = entries[i].id;
    const size_t first_child = nodes_.size(), first_waiting = waiting.size();
    while (i < here.end) {
      const size_t first = i;
      const char byte = entries[first].text[here.depth];
      while (i < here.end && entries[i].text[here.depth] == byte) ++i;
      const auto child = static_cast<uint32_t>(nodes_.size());
      if (here.depth == 0) root_children_[here.node][static_cast<uint8_t>(byte)] = child;
      waiting.push_back({first, i, here.depth + 1, child});
      labels_.push_back(static_cast<uint8_t>(byte));
      nodes_.emplace_back();
    }
    if (nodes_.size() > std::numeric_limits<uint32_t>::max())
      throw InputError("the vocabulary is too large: over 4 GB");
    nodes_[here.node].first_child = static_cast<uint32_t>(first_child);
    nodes_[here.node].num_children = static_cast<uint32_t>(nodes_.size() - first_child);
    std::reverse(waiting.begin() + static_cast<ptrdiff_t>(first_waiting), waiting.end());
  }
  labels_.resize(labels_.size() + kLabelPadding);
}

inline uint32_t WordPiece::child(uint32_t node, uint8_t byte) const {
  uint32_t first = nodes_[node].first_child;
  const uint32_t end = first + nodes_[node].num_children;
#ifdef __SSE2__
  const __m128i wanted = _mm_set1_epi8(static_cast<char>(byte));
  for (; first < end; first += 16) {
    const __m128i labels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(labels_.data() + first));
    const int equal = _mm_movemask_epi8(_mm_cmpeq_epi8(labels, wanted));
    if (!equal) continue;
    const uint32_t found = first + static_cast<uint32_t>(__builtin_ctz(static_cast<unsigned>(equal)));
    return found < end ? found : kNone;  // beyond the end are other nodes' children
  }
#else
  for (; first < end; ++first)
    if (labels_[first] == byte) return first;
#endif
  return kNone;
}

void WordPiece::unknown(const uint8_t* word, size_t num_bytes, std::vector<Piece>& pieces) const {
  if (unk_id_ < 0) {
    const std::string shown(reinterpret_cast<const char*>(word), std::min(num_bytes, kShownBytes));
    throw InputError("the vocabulary has no [UNK] and cannot spell the word '" + shown +
                     "'. Try: add a line [UNK] to vocab.txt");
  }
  pieces.assign(1, Piece{unk_id_, static_cast<uint32_t>(num_bytes)});
}

void WordPiece::split(const uint8_t* word, size_t num_bytes, size_t num_chars, std::vector<Piece>& pieces) const {
  pieces.clear();
  if (num_chars > max_chars_) return unknown(word, num_bytes, pieces);
  for (size_t begin = 0; begin < num_bytes;) {
    Piece longest{-1, 0};
    size_t i = begin;
    for (uint32_t node = root_children_[begin ? kContinuationRoot : kWordRoot][word[i]]; node != kNone;
         node = child(node, word[i])) {
      ++i;
      if (nodes_[node].id >= 0) longest = Piece{nodes_[node].id, static_cast<uint32_t>(i)};
      if (i == num_bytes) break;
    }
    if (longest.id < 0) return unknown(word, num_bytes, pieces);
    pieces.push_back(longest);
    begin = longest.end;
  }
}

}  // namespace fastbert
