// BertNormalizer and BertPreTokenizer in one pass: raw text in, normalised words out.
//
// clean_text deletes control characters and turns blanks into spaces; handle_chinese_chars sets ideographs apart;
// strip_accents decomposes (NFD), orders the marks and drops the nonspacing ones; lowercase is last. Words are then
// split at white space, and each punctuation character is a word (split_punctuation), as is each of the digits 0 to 9
// (single_digits).
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace fastbert {

struct NormalizerOptions {
  bool lowercase = true;
  bool strip_accents = true;
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool split_punctuation = true;
  bool single_digits = false;
};

// What one code point becomes under given options, for all code points: immutable, built once per set of options.
class NormalizerTable {
 public:
  enum Kind : uint32_t {
    kSelf,       // part of a word, unchanged
    kSelfAlone,  // a word of its own, unchanged
    kText,       // part of a word, as the UTF-8 at text(entry)
    kAlone,      // a word of its own, as the UTF-8 at text(entry)
    kSpace,      // ends the word
    kDelete,     // nothing at all
    kPieces,     // marks to be ordered, or more than one class: pieces(entry)
  };
  struct Piece {
    uint8_t bytes[4];
    uint8_t length;           // 0: dropped, but ends a run of marks
    uint8_t combining_class;  // 0: ends a run of marks
    uint8_t white_space, punctuation;
  };

  static std::shared_ptr<const NormalizerTable> get(const NormalizerOptions& options);
  explicit NormalizerTable(const NormalizerOptions& options);

  // kind in the low 3 bits, length in the next 5, offset above
  uint32_t entry(uint32_t code_point) const {
    return entries_[(static_cast<uint32_t>(pages_[code_point >> 8]) << 8) | (code_point & 255)];
  }
  static Kind kind(uint32_t entry) { return static_cast<Kind>(entry & 7); }
  static uint32_t length(uint32_t entry) { return (entry >> 3) & 31; }
  const uint8_t* text(uint32_t entry) const { return text_.data() + (entry >> 8); }
  // What an ASCII character becomes when it is one ASCII character inside of a word, else 0.
  uint8_t plain_ascii(uint8_t character) const { return plain_ascii_[character]; }
  const Piece* pieces(uint32_t entry) const { return pieces_.data() + (entry >> 8); }

 private:
  uint32_t make_entry(uint32_t code_point, const NormalizerOptions& options);
  uint32_t add_pieces(const uint32_t* parts, int count, const NormalizerOptions& options);

  uint8_t plain_ascii_[128] = {};
  std::vector<uint16_t> pages_;
  std::vector<uint32_t> entries_;
  std::vector<uint8_t> text_;
  std::vector<Piece> pieces_;
};

// Scratch memory and the loop. One instance per thread; cheap to keep, safe to reuse after an exception.
class Normalizer {
 public:
  static constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

  explicit Normalizer(const NormalizerOptions& options) : table_(NormalizerTable::get(options)), options_(options) {}

  // Calls sink(const uint8_t* bytes, size_t num_bytes, size_t num_chars) for every word of a UTF-8 text (ill-formed
  // bytes count as U+FFFD). Of a word of more than max_chars characters only that many are stored and num_chars is
  // max_chars + 1 (memory stays bounded whatever the text). The bytes are valid during the call only.
  template <class Sink>
  void words(const uint8_t* text, size_t num_bytes, Sink&& sink, size_t max_chars = kNoLimit);

  // The same words with where they came from: sink(bytes, num_bytes, num_chars, const uint32_t* sources), sources[i]
  // being the index, in characters of the text and counted from first_char, of the character that word character i
  // came from; sources[num_chars - 1] is right also when the word was cut at max_chars.
  template <class Sink>
  void aligned_words(const uint8_t* text, size_t num_bytes, uint32_t first_char, Sink&& sink,
                     size_t max_chars = kNoLimit);

 private:
  // A mark waiting for the end of its run; in aligned_words also the starter before it and the marks to be dropped.
  struct Mark {
    uint32_t code_point;
    uint8_t combining_class;
    bool inserted;  // a further code point of a decomposition: takes the place of no source character
    uint8_t length;
    uint8_t bytes[4];
  };

  void append(const uint8_t* bytes, size_t length, size_t num_chars, size_t max_chars) {
    if (num_chars_ + num_chars > max_chars) {
      num_chars_ = max_chars + 1;
      return;
    }
    if (word_.size() < word_size_ + length) word_.resize(2 * (word_size_ + length));
    for (size_t i = 0; i < length; ++i) word_[word_size_ + i] = bytes[i];  // too few to call memcpy
    word_size_ += length;
    num_chars_ += num_chars;
  }
  void append_self(uint32_t code_point, size_t max_chars);
  void flush_marks(size_t max_chars);
  template <class Sink>
  void end_word(Sink& sink, size_t max_chars);
  template <class Sink>
  void add_pieces(const NormalizerTable::Piece* piece, uint32_t count, Sink& sink, size_t max_chars);

  static void sort_marks(std::vector<Mark>& marks);
  template <class Sink>
  void aligned_flush(Sink& sink, size_t max_chars);
  template <class Sink>
  void aligned_add(uint32_t code_point, uint32_t source, Sink& sink, size_t max_chars);
  template <class Sink>
  void aligned_end_word(Sink& sink);
  template <class Sink>
  void aligned_decompose(uint32_t code_point, uint32_t source, Sink& sink, size_t max_chars);

  std::shared_ptr<const NormalizerTable> table_;
  NormalizerOptions options_;
  std::vector<uint8_t> word_;  // the word so far is its first word_size_ bytes
  size_t word_size_ = 0;
  size_t num_chars_ = 0;
  std::vector<Mark> marks_;
  std::vector<uint32_t> sources_;       // aligned_words: of the characters of word_
  std::vector<uint32_t> mark_sources_;  // aligned_words: of the characters that marks_ came from
  uint32_t last_source_ = 0;
};

}  // namespace fastbert

#include "text/normalizer_words.h"
