// The loops of normalizer.h. Included by it alone.
#pragma once
#include <algorithm>

#include "text/normalizer.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace fastbert {

// Whether a character is a word of its own that is no punctuation.
inline bool stands_alone(uint32_t code_point, uint16_t facts, const NormalizerOptions& options) {
  return (options.handle_chinese_chars && (facts & kFlagIdeograph)) ||
         (options.single_digits && code_point >= '0' && code_point <= '9');
}

inline void Normalizer::append_self(uint32_t code_point, size_t max_chars) {
  uint8_t bytes[4];
  const int length = encode_utf8(code_point, bytes);
  append(bytes, static_cast<size_t>(length), 1, max_chars);
}

inline void Normalizer::flush_marks(size_t max_chars) {
  if (marks_.empty()) return;
  sort_marks(marks_);
  for (const Mark& mark : marks_) append(mark.bytes, mark.length, 1, max_chars);
  marks_.clear();
}

template <class Sink>
void Normalizer::end_word(Sink& sink, size_t max_chars) {
  flush_marks(max_chars);
  if (num_chars_ == 0) return;
  sink(static_cast<const uint8_t*>(word_.data()), word_size_, num_chars_);
  word_size_ = 0;
  num_chars_ = 0;
}

template <class Sink>
void Normalizer::add_pieces(const NormalizerTable::Piece* piece, uint32_t count, Sink& sink, size_t max_chars) {
  for (uint32_t i = 0; i < count; ++i, ++piece) {
    if (piece->combining_class) {
      // a word that is too long already needs no order, and a run of marks no memory
      if (num_chars_ + marks_.size() > max_chars) {
        num_chars_ = max_chars + 1;
        continue;
      }
      Mark mark{0, piece->combining_class, false, piece->length, {}};
      std::copy_n(piece->bytes, 4, mark.bytes);
      marks_.push_back(mark);
      continue;
    }
    flush_marks(max_chars);
    if (piece->white_space || piece->punctuation) end_word(sink, max_chars);
    if (piece->length == 0 || piece->white_space) continue;
    append(piece->bytes, piece->length, 1, max_chars);
    if (piece->punctuation) end_word(sink, max_chars);
  }
}

template <class Sink>
void Normalizer::words(const uint8_t* text, size_t num_bytes, Sink&& sink, size_t max_chars) {
  word_size_ = 0;
  marks_.clear();
  num_chars_ = 0;
  const uint8_t* const end = text + num_bytes;
  for (const uint8_t* p = text; p < end;) {
    if (*p < 0x80 && table_->plain_ascii(*p) && marks_.empty()) {
      const uint8_t byte = table_->plain_ascii(*p++);
      append(&byte, 1, 1, max_chars);
      continue;
    }
    const uint32_t code_point = decode_utf8(p, end);
    const uint32_t entry = table_->entry(code_point);
    const uint32_t length = NormalizerTable::length(entry);
    switch (NormalizerTable::kind(entry)) {
      case NormalizerTable::kSelf:
        flush_marks(max_chars);
        append_self(code_point, max_chars);
        break;
      case NormalizerTable::kSelfAlone:
        end_word(sink, max_chars);
        append_self(code_point, max_chars);
        end_word(sink, max_chars);
        break;
      case NormalizerTable::kText: {
        const uint8_t* bytes = table_->text(entry);
        const auto num_chars = static_cast<size_t>(
            std::count_if(bytes, bytes + length, [](uint8_t byte) { return !is_utf8_continuation(byte); }));
        flush_marks(max_chars);
        append(bytes, length, num_chars, max_chars);
        break;
      }
      case NormalizerTable::kAlone:
        end_word(sink, max_chars);
        append(table_->text(entry), length, 1, max_chars);
        end_word(sink, max_chars);
        break;
      case NormalizerTable::kSpace: end_word(sink, max_chars); break;
      case NormalizerTable::kDelete: break;
      case NormalizerTable::kPieces: add_pieces(table_->pieces(entry), length, sink, max_chars); break;
    }
  }
  end_word(sink, max_chars);
}

template <class Sink>
void Normalizer::aligned_end_word(Sink& sink) {
  if (num_chars_ == 0) return;
  sink(static_cast<const uint8_t*>(word_.data()), word_size_, num_chars_,
       static_cast<const uint32_t*>(sources_.data()));
  word_size_ = 0;
  sources_.clear();
  num_chars_ = 0;
}

template <class Sink>
void Normalizer::aligned_add(uint32_t code_point, uint32_t source, Sink& sink, size_t max_chars) {
  uint32_t lowered[2] = {code_point, 0};
  const int count = options_.lowercase ? lower_case(code_point, lowered) : 1;
  for (int i = 0; i < count; ++i) {
    const uint16_t facts = code_point_facts()[lowered[i]];
    const bool punctuation = options_.split_punctuation && (facts & kFlagPunctuation);
    if (punctuation || (facts & kFlagWhiteSpace)) aligned_end_word(sink);
    if (facts & kFlagWhiteSpace) continue;
    uint8_t bytes[4];
    const auto length = static_cast<size_t>(encode_utf8(lowered[i], bytes));
    if (num_chars_ > max_chars) {
      sources_.back() = source;
      continue;
    }
    append(bytes, length, 1, max_chars);
    sources_.push_back(source);
    if (punctuation) aligned_end_word(sink);
  }
}

// The reference aligns the i-th code point that replaces a source character with the i-th source character, in the
// order the marks have after sorting, and an inserted code point with the source before it.
template <class Sink>
void Normalizer::aligned_flush(Sink& sink, size_t max_chars) {
  if (marks_.size() > 1) sort_marks(marks_);
  size_t next = 0;
  for (const Mark& mark : marks_) {
    if (!mark.inserted) last_source_ = mark_sources_[next++];
    if (code_point_facts()[mark.code_point] & kFlagNonspacing) continue;
    aligned_add(mark.code_point, last_source_, sink, max_chars);
  }
  marks_.clear();
  mark_sources_.clear();
}

template <class Sink>
void Normalizer::aligned_decompose(uint32_t code_point, uint32_t source, Sink& sink, size_t max_chars) {
  uint32_t parts[4];
  const int count = decompose(code_point, parts);
  for (int i = 0; i < count; ++i) {
    const auto combining_class = static_cast<uint8_t>(code_point_facts()[parts[i]] & 255);
    if (combining_class == 0) aligned_flush(sink, max_chars);
    marks_.push_back(Mark{parts[i], combining_class, i > 0, 0, {}});
    if (i == 0) mark_sources_.push_back(source);
  }
}

template <class Sink>
void Normalizer::aligned_words(const uint8_t* text, size_t num_bytes, uint32_t first_char, Sink&& sink,
                               size_t max_chars) {
  word_size_ = 0;
  marks_.clear();
  sources_.clear();
  mark_sources_.clear();
  last_source_ = first_char;
  num_chars_ = 0;
  const uint8_t* const end = text + num_bytes;
  uint32_t source = first_char;
  for (const uint8_t* p = text; p < end; ++source) {
    uint32_t code_point = decode_utf8(p, end);
    const uint16_t facts = code_point_facts()[code_point];
    if (options_.clean_text) {
      if (facts & kFlagRemoved) continue;
      if (facts & kFlagCleanSpace) code_point = ' ';
    }
    const bool apart = stands_alone(code_point, facts, options_);
    if (apart) {
      aligned_flush(sink, max_chars);
      aligned_end_word(sink);
    }
    if (options_.strip_accents) {
      aligned_decompose(code_point, source, sink, max_chars);
    } else {
      aligned_add(code_point, source, sink, max_chars);
    }
    if (apart) {
      aligned_flush(sink, max_chars);
      aligned_end_word(sink);
    }
  }
  aligned_flush(sink, max_chars);
  aligned_end_word(sink);
}

}  // namespace fastbert
