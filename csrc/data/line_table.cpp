#include "data/line_table.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "text/utf8.h"

namespace fastbert {
namespace {

constexpr size_t kStride = 8;
constexpr uint64_t kMix = 0x9E3779B97F4A7C15u;

std::array<std::array<uint32_t, 256>, kStride> make_tables() {
  std::array<std::array<uint32_t, 256>, kStride> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0xEDB88320u ^ value >> 1 : value >> 1;
    tables[0][byte] = value;
  }
  for (size_t k = 1; k < kStride; ++k)
    for (size_t byte = 0; byte < 256; ++byte)
      tables[k][byte] = tables[k - 1][byte] >> 8 ^ tables[0][tables[k - 1][byte] & 255];
  return tables;
}

bool is_space(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

// Letters in lower case; 0 for digits, punctuation and blanks.
std::array<uint8_t, 256> make_letters() {
  std::array<uint8_t, 256> table{};
  for (size_t byte = 0; byte < 256; ++byte) {
    const auto c = static_cast<uint8_t>(byte);
    const bool upper = c >= 'A' && c <= 'Z', lower = c >= 'a' && c <= 'z';
    const bool control = (c < ' ' && !is_space(c)) || c == 0x7F;
    if (upper || lower || control || c >= 0x80) table[byte] = static_cast<uint8_t>(upper ? c + 32 : c);
  }
  return table;
}

}  // namespace

uint32_t crc32(const uint8_t* bytes, size_t size, uint32_t seed) {
  static const auto tables = make_tables();
  uint32_t value = ~seed;
  for (; size >= kStride; size -= kStride, bytes += kStride) {
    uint32_t low, high;
    std::memcpy(&low, bytes, 4);
    std::memcpy(&high, bytes + 4, 4);
    low ^= value;
    value = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24] ^
            tables[3][high & 255] ^ tables[2][high >> 8 & 255] ^ tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
  }
  for (; size; --size) value = tables[0][(value ^ *bytes++) & 255] ^ value >> 8;
  return ~value;
}

uint64_t LineTable::add(const uint8_t* text, size_t size, bool continues) {
  const uint64_t ended = continues ? 0 : begin_document();
  const uint8_t* const end = text + size;
  for (const uint8_t* p = text; p < end;) {
    const auto* newline = static_cast<const uint8_t*>(std::memchr(p, '\n', static_cast<size_t>(end - p)));
    if (!newline) newline = end;
    add_line(p, static_cast<size_t>(newline - p));
    p = newline + 1;
  }
  return ended;
}

void LineTable::add_text(const uint8_t* text, size_t size, std::vector<uint64_t>& ended) {
  const uint8_t* const end = text + size;
  for (const uint8_t* p = text; p < end;) {
    const auto* newline = static_cast<const uint8_t*>(std::memchr(p, '\n', static_cast<size_t>(end - p)));
    if (!newline) newline = end;
    if (!std::all_of(p, newline, is_space)) {
      if (!is_open_)
        if (const uint64_t bytes = begin_document()) ended.push_back(bytes);
      is_open_ = true;
      add_line(p, static_cast<size_t>(newline - p));
    } else if (!inside_line_) {  // otherwise the end of a line that was cut
      is_open_ = false;
    }
    inside_line_ = false;
    p = newline + 1;
  }
  if (size) inside_line_ = text[size - 1] != '\n';
}

uint64_t LineTable::end() {
  inside_line_ = is_open_ = false;
  return end_document();
}

uint64_t LineTable::begin_document() {
  const uint64_t ended = end_document();
  ++totals_.documents;
  return ended;
}

uint64_t LineTable::end_document() {
  const uint64_t bytes = document_bytes_ + document_lines_;  // with the line feeds
  if (document_bytes_) {
    const uint64_t key = (document_key_ ^ document_bytes_) * kMix;
    if (documents_.count(key)) {
      ++totals_.exact_documents;
    } else {
      uint64_t most = 0;
      for (const auto& [document, lines] : shared_) most = std::max(most, lines);
      if (!shared_.empty() && static_cast<double>(most) >= min_shared_ * static_cast<double>(open_lines_))
        ++totals_.near_documents;
      if (documents_.size() < max_lines_) documents_.insert(key);
    }
  }
  document_key_ = 1;  // so that an empty line changes it
  document_bytes_ = document_lines_ = open_lines_ = 0;
  if (!shared_.empty()) shared_.clear();
  return bytes;
}

void LineTable::add_line(const uint8_t* line, size_t size) {
  const uint32_t key = crc32(line, size);
  document_key_ = (document_key_ ^ key ^ size) * kMix;
  document_bytes_ += size;
  ++document_lines_;
  ++totals_.lines;
  if (size > max_word_chars_) count_long_words(line, size);
  if (key >= limit_ || !size) return;
  ++totals_.sampled_lines;
  ++open_lines_;
  const auto document = static_cast<uint32_t>(totals_.documents);
  Line& known = find(uint64_t{key} << 32 | std::min<uint64_t>(size, 0xFFFFFFFFu));
  if (known.count == 0) {
    known.key = uint64_t{key} << 32 | std::min<uint64_t>(size, 0xFFFFFFFFu);
    known.first_document = known.last_document = document;
    known.count = 1;
    known.documents = 1;
    known.text = texts_.size();
    texts_.append(reinterpret_cast<const char*>(line), shown_bytes(known.key));
    ++totals_.distinct_lines;
    add_near(line, size, key);
    if (totals_.distinct_lines > max_lines_) {
      halve();
    } else if (2 * totals_.distinct_lines > slots_.size()) {
      grow();
    }
    return;
  }
  ++known.count;
  if (known.first_document != document) ++shared_[known.first_document];
  if (known.last_document != document) {
    known.last_document = document;
    ++known.documents;
  }
}

void LineTable::add_near(const uint8_t* line, size_t size, uint32_t key) {
  static const auto lowered = make_letters();
  if (letters_.size() < size) letters_.resize(size);
  size_t count = 0;
  for (size_t i = 0; i < size; ++i) {
    letters_[count] = lowered[line[i]];
    count += lowered[line[i]] != 0;
  }
  if (!add_letters(crc32(letters_.data(), count), key)) ++totals_.near_lines;
}

// False if another line has these letters.
bool LineTable::add_letters(uint32_t letters, uint32_t key) {
  if (!letters && !key) return true;
  const size_t mask = near_.size() - 1;
  size_t i = static_cast<size_t>((letters * kMix) >> 32) & mask;
  while (near_[i] && near_[i] >> 32 != letters) i = (i + 1) & mask;
  if (near_[i]) return static_cast<uint32_t>(near_[i]) == key;
  near_[i] = uint64_t{letters} << 32 | key;
  if (2 * ++num_near_ > near_.size()) grow_near();
  return true;
}

void LineTable::count_long_words(const uint8_t* line, size_t size) {
  const uint8_t* const end = line + size;
  for (const uint8_t* p = line; p < end;) {
    const uint8_t* const word_end = std::find_if(p, end, is_space);
    if (static_cast<size_t>(word_end - p) > max_word_chars_) {
      const auto chars = std::count_if(p, word_end, [](uint8_t byte) { return !is_utf8_continuation(byte); });
      totals_.long_words += static_cast<size_t>(chars) > max_word_chars_;
    }
    p = word_end == end ? end : word_end + 1;
  }
}

LineTable::Line& LineTable::find(uint64_t key) {
  const size_t mask = slots_.size() - 1;
  for (size_t i = static_cast<size_t>((key * kMix) >> 32) & mask;; i = (i + 1) & mask)
    if (slots_[i].key == key || slots_[i].key == 0) return slots_[i];
}

void LineTable::grow() {
  std::vector<Line> old(2 * slots_.size());
  old.swap(slots_);
  for (Line& line : old)
    if (line.key) find(line.key) = line;
}

void LineTable::grow_near() {
  std::vector<uint64_t> old(2 * near_.size());
  old.swap(near_);
  num_near_ = 0;
  for (const uint64_t entry : old)
    if (entry) add_letters(static_cast<uint32_t>(entry >> 32), static_cast<uint32_t>(entry));
}

// A sample of half the lines, until they are few enough: those with the smaller checksums.
void LineTable::halve() {
  uint64_t kept = totals_.distinct_lines;
  while (kept > max_lines_) {
    limit_ /= 2;
    kept = static_cast<uint64_t>(std::count_if(slots_.begin(), slots_.end(),
                                               [&](const Line& line) { return line.key && line.key >> 32 < limit_; }));
  }
  std::vector<Line> old(slots_.size());
  old.swap(slots_);
  std::string texts;
  texts.swap(texts_);
  totals_.sampled_lines = 0;
  for (Line& line : old) {
    if (!line.key || line.key >> 32 >= limit_) continue;
    totals_.sampled_lines += line.count;
    const size_t begin = line.text;
    line.text = texts_.size();
    texts_.append(texts, begin, shown_bytes(line.key));
    find(line.key) = line;
  }
  std::vector<uint64_t> near(near_.size());
  near.swap(near_);
  num_near_ = 0;
  for (const uint64_t entry : near)
    if (entry && static_cast<uint32_t>(entry) < limit_)
      add_letters(static_cast<uint32_t>(entry >> 32), static_cast<uint32_t>(entry));
  totals_.distinct_lines = kept;
  totals_.near_lines = std::min(totals_.near_lines / 2, kept);
}

LineTable::Totals LineTable::totals() const {
  Totals result = totals_;
  result.estimated = limit_ < 1ull << 32;
  for (const Line& line : slots_) {
    if (!line.key) continue;
    const uint64_t size = line.key & 0xFFFFFFFFu, all = size * line.count;
    result.bytes += all;
    result.distinct_bytes += size;
    if (line.count > 1) result.repeated_bytes += all;
    if (line.documents > 1) result.shared_bytes += all;
  }
  return result;
}

}  // namespace fastbert
