// Repeated lines and documents of a text of any size, in bounded memory. The twin, and the specification, is
// fastbert/inspect/line_table.py.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace fastbert {

// The checksum of zlib; `seed` is that of the bytes before.
uint32_t crc32(const uint8_t* bytes, size_t size, uint32_t seed = 0);

class LineTable {
 public:
  static constexpr size_t kShownBytes = 240;

  struct Line {
    uint64_t key;  // checksum << 32 | size; size is never 0, so 0 is a free place
    uint64_t count;
    uint32_t first_document, last_document, documents;
    uint64_t text;  // where its first kShownBytes are in texts_
  };
  struct Totals {
    uint64_t lines = 0, documents = 0, exact_documents = 0, near_documents = 0;
    uint64_t sampled_lines = 0, distinct_lines = 0, near_lines = 0;
    uint64_t bytes = 0, distinct_bytes = 0;  // of the sampled lines
    uint64_t repeated_bytes = 0;             // of lines that occur again
    uint64_t shared_bytes = 0;               // of lines that several documents have
    uint64_t long_words = 0;
    bool estimated = false;
  };

  // Words of more than max_word_chars characters are counted, as long ones. min_shared: of the lines of a document, in
  // one other, make it a near-duplicate.
  LineTable(size_t max_lines, size_t max_word_chars, double min_shared)
      : max_lines_(max_lines), max_word_chars_(max_word_chars), min_shared_(min_shared), slots_(1 << 10) {}

  // Counts the lines of a document, or with `continues` of a part of one. Returns the bytes of the document that ends
  // before it, 0 for none.
  uint64_t add(const uint8_t* text, size_t size, bool continues);
  // Counts the documents of a block of plain text, which blank lines divide, and appends the bytes of each that ends.
  void add_text(const uint8_t* text, size_t size, std::vector<uint64_t>& ended);
  // Ends the document that is open, and the text; returns its bytes.
  uint64_t end();

  Totals totals() const;
  // Calls visit(const Line&, std::string_view beginning) for every line of the table.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (const Line& line : slots_)
      if (line.key) visit(line, std::string_view(texts_.data() + line.text, shown_bytes(line.key)));
  }

 private:
  uint64_t begin_document();
  uint64_t end_document();
  void add_line(const uint8_t* line, size_t size);
  void add_near(const uint8_t* line, size_t size, uint32_t key);
  void count_long_words(const uint8_t* line, size_t size);
  Line& find(uint64_t key);
  bool add_letters(uint32_t letters, uint32_t key);
  void grow();
  void grow_near();
  void halve();
  static size_t shown_bytes(uint64_t key) { return std::min<size_t>(key & 0xFFFFFFFFu, kShownBytes); }

  size_t max_lines_, max_word_chars_;
  double min_shared_;
  Totals totals_;                // the counts that are kept as they come
  uint64_t limit_ = 1ull << 32;  // checksums below it are in the table
  std::vector<Line> slots_;      // a power of two, at most half full
  std::string texts_;            // the beginnings of the lines
  std::vector<uint64_t> near_ =
      std::vector<uint64_t>(1 << 10);  // checksum of the letters << 32 | of the first such line
  size_t num_near_ = 0;
  std::vector<uint8_t> letters_;  // of the line that is added
  std::unordered_set<uint64_t> documents_;
  // of the open document
  uint64_t document_key_ = 1, document_bytes_ = 0, document_lines_ = 0, open_lines_ = 0;
  std::unordered_map<uint32_t, uint64_t> shared_;  // lines by the document that had them first
  // of the open text
  bool inside_line_ = false, is_open_ = false;
};

}  // namespace fastbert
