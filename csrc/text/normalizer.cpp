#include "text/normalizer.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>

namespace fastbert {
namespace {

constexpr uint32_t kPageSize = 256;

// Whether all code points with these facts have this entry, whichever they are.
bool is_general(uint32_t entry, uint16_t facts) {
  const NormalizerTable::Kind kind = NormalizerTable::kind(entry);
  return kind == NormalizerTable::kSelf || kind == NormalizerTable::kSelfAlone ||
         (kind == NormalizerTable::kDelete && !(facts & kFlagDecomposes));
}

uint32_t pack(NormalizerTable::Kind kind, size_t length = 0, size_t offset = 0) {
  return static_cast<uint32_t>(kind) | static_cast<uint32_t>(length << 3) | static_cast<uint32_t>(offset << 8);
}

// What strip_accents and lowercase make of a code point: pieces, the dropped starters among them with length 0.
std::vector<NormalizerTable::Piece> normalise(uint32_t code_point, const NormalizerOptions& options) {
  const uint16_t* facts = code_point_facts();
  std::vector<NormalizerTable::Piece> pieces;
  uint32_t parts[4] = {code_point};
  const int num_parts = options.strip_accents ? decompose(code_point, parts) : 1;
  for (int i = 0; i < num_parts; ++i) {
    const auto combining_class = static_cast<uint8_t>(options.strip_accents ? facts[parts[i]] & 255 : 0);
    if (options.strip_accents && (facts[parts[i]] & kFlagNonspacing)) {
      // a dropped mark leaves the order of the others alone, unless it is a starter: nothing moves across those
      if (combining_class == 0) pieces.push_back({{}, 0, 0, false, false});
      continue;
    }
    uint32_t lowered[2] = {parts[i]};
    const int num_lowered = options.lowercase ? lower_case(parts[i], lowered) : 1;
    for (int j = 0; j < num_lowered; ++j) {
      NormalizerTable::Piece piece{};
      piece.length = static_cast<uint8_t>(encode_utf8(lowered[j], piece.bytes));
      piece.combining_class = combining_class;
      piece.white_space = (facts[lowered[j]] & kFlagWhiteSpace) != 0;
      piece.punctuation = options.split_punctuation && (facts[lowered[j]] & kFlagPunctuation);
      pieces.push_back(piece);
    }
  }
  return pieces;
}

}  // namespace

uint32_t NormalizerTable::make_entry(uint32_t code_point, const NormalizerOptions& options) {
  const uint16_t facts = code_point_facts()[code_point];
  if (options.clean_text) {
    if (facts & kFlagRemoved) return pack(kDelete);
    if (facts & kFlagCleanSpace) return pack(kSpace);
  }
  const bool apart = stands_alone(code_point, facts, options);
  const uint16_t touched = kFlagWhiteSpace | (options.split_punctuation ? kFlagPunctuation : 0) |
                           (options.lowercase ? kFlagLower : 0) |
                           (options.strip_accents ? kFlagNonspacing | kFlagDecomposes | 255 : 0);
  if (!(facts & touched)) return pack(apart ? kSelfAlone : kSelf);

  const std::vector<Piece> pieces = normalise(code_point, options);
  if (pieces.empty()) return pack(kDelete);
  bool plain = true;
  for (const Piece& piece : pieces)
    plain = plain && piece.length && !piece.combining_class && !piece.white_space && !piece.punctuation;
  const bool single = pieces.size() == 1 && !pieces[0].combining_class;
  if (apart && !(single && plain)) throw std::logic_error("a character apart that does not become one");
  if (single && pieces[0].white_space) return pack(kSpace);
  if (plain || (single && pieces[0].punctuation)) {
    const size_t offset = text_.size();
    for (const Piece& piece : pieces) text_.insert(text_.end(), piece.bytes, piece.bytes + piece.length);
    return pack(plain && !apart ? kText : kAlone, text_.size() - offset, offset);
  }
  const size_t offset = pieces_.size();
  pieces_.insert(pieces_.end(), pieces.begin(), pieces.end());
  return pack(kPieces, pieces.size(), offset);
}

NormalizerTable::NormalizerTable(const NormalizerOptions& options) : pages_(kNumCodePoints / kPageSize) {
  std::map<std::vector<uint32_t>, uint16_t> known;  // most pages are alike
  std::vector<uint32_t> page(kPageSize);
  for (uint32_t first = 0; first < kNumCodePoints; first += kPageSize) {
    // of most pages all code points are alike
    const uint16_t* facts = code_point_facts() + first;
    page[0] = make_entry(first, options);
    const bool uniform = is_general(page[0], facts[0]) && std::count(facts, facts + kPageSize, facts[0]) == kPageSize;
    for (uint32_t i = 1; i < kPageSize; ++i) page[i] = uniform ? page[0] : make_entry(first + i, options);
    const auto [found, is_new] = known.emplace(page, static_cast<uint16_t>(known.size()));
    if (is_new) entries_.insert(entries_.end(), page.begin(), page.end());
    pages_[first / kPageSize] = found->second;
  }
  for (uint32_t c = 1; c < 128; ++c) {
    if (kind(entry(c)) == kSelf) plain_ascii_[c] = static_cast<uint8_t>(c);
    if (kind(entry(c)) == kText && length(entry(c)) == 1) plain_ascii_[c] = *text(entry(c));
  }
}

std::shared_ptr<const NormalizerTable> NormalizerTable::get(const NormalizerOptions& options) {
  // leaked on purpose: threads may outlive the static destructors
  static auto* mutex = new std::mutex;
  static auto* tables = new std::shared_ptr<const NormalizerTable>[64];
  const int index = options.lowercase | options.strip_accents << 1 | options.clean_text << 2 |
                    options.handle_chinese_chars << 3 | options.split_punctuation << 4 | options.single_digits << 5;
  std::lock_guard<std::mutex> lock(*mutex);
  if (!tables[index]) tables[index] = std::make_shared<const NormalizerTable>(options);
  return tables[index];
}

void Normalizer::sort_marks(std::vector<Mark>& marks) {
  std::stable_sort(marks.begin(), marks.end(),
                   [](const Mark& a, const Mark& b) { return a.combining_class < b.combining_class; });
}

}  // namespace fastbert
