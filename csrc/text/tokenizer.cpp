#include "text/tokenizer.h"

#include <algorithm>
#include <cstring>

#include "text/utf8.h"

namespace fastbert {

Tokenizer::Scratch::Scratch(const Tokenizer& owner) : tokenizer(owner), normalizer(owner.options().normalizer) {}

void Tokenizer::Scratch::expect(size_t num_bytes) {
  narrow_cache.expect(num_bytes);
  wide_cache.expect(num_bytes);
}

void Tokenizer::Scratch::encode_segment(const uint8_t* text, size_t num_bytes, IdBuffer& ids) {
  const WordPiece& wordpiece = tokenizer.wordpiece_;
  normalizer.words(
      text, num_bytes,
      [&](const uint8_t* word, size_t word_bytes, size_t num_chars) {
        wordpiece.split(word, word_bytes, num_chars, pieces);
        ids.reserve_more(pieces.size());
        int32_t* out = ids.end();
        for (const WordPiece::Piece& piece : pieces) *out++ = piece.id;
        ids.set_end(out);
      },
      wordpiece.max_chars());
}

Tokenizer::Tokenizer(const std::vector<std::string>& vocab, int32_t unk_id, std::vector<SpecialToken> special_tokens,
                     const TokenizerOptions& options)
    : options_(options),
      classes_(options.normalizer),
      narrow_ids_(vocab.size() <= size_t{1} << 16),
      wordpiece_(vocab, unk_id, options.max_input_chars_per_word),
      special_tokens_(std::move(special_tokens)) {
  for (const SpecialToken& token : special_tokens_) narrow_ids_ = narrow_ids_ && token.id < 1 << 16;
  // leftmost, then longest, as the reference's automaton finds them
  std::stable_sort(special_tokens_.begin(), special_tokens_.end(),
                   [](const SpecialToken& a, const SpecialToken& b) { return a.text.size() > b.text.size(); });
  for (const SpecialToken& token : special_tokens_) starts_special_[static_cast<uint8_t>(token.text[0])] = true;
  const auto first = std::find(starts_special_.begin(), starts_special_.end(), true);
  if (std::count(starts_special_.begin(), starts_special_.end(), true) == 1)
    only_start_ = static_cast<int>(first - starts_special_.begin());
}

const SpecialToken* Tokenizer::special_at(const uint8_t* text, size_t num_bytes) const {
  for (const SpecialToken& token : special_tokens_)
    if (token.text.size() <= num_bytes && !std::memcmp(text, token.text.data(), token.text.size())) return &token;
  return nullptr;
}

const uint8_t* Tokenizer::next_candidate(const uint8_t* p, const uint8_t* end) const {
  if (p == end || special_tokens_.empty()) return end;
  if (only_start_ >= 0) {
    const void* found = std::memchr(p, only_start_, static_cast<size_t>(end - p));
    return found ? static_cast<const uint8_t*>(found) : end;
  }
  return std::find_if(p, end, [this](uint8_t byte) { return starts_special_[byte]; });
}

template <class Plain, class Special>
void Tokenizer::for_each_part(const uint8_t* text, size_t num_bytes, bool split_special_tokens, Plain&& plain,
                              Special&& special) const {
  const uint8_t* const end = text + num_bytes;
  const uint8_t* begin = text;  // of the plain part that is going on
  if (!split_special_tokens) {
    for (const uint8_t* p = next_candidate(text, end); p != end;) {
      const SpecialToken* token = special_at(p, static_cast<size_t>(end - p));
      if (!token) {
        p = next_candidate(p + 1, end);
        continue;
      }
      if (begin < p) plain(begin, p);
      begin = p + token->text.size();
      special(*token, p, begin);
      p = next_candidate(begin, end);
    }
  }
  if (begin < end) plain(begin, end);
}

void Tokenizer::encode_plain(const uint8_t* text, size_t num_bytes, Scratch& scratch, IdBuffer& ids) const {
  if (narrow_ids_) {
    segment_scan<uint16_t>(options_.simd)(classes_, scratch.narrow_cache.next(num_bytes), scratch, text, num_bytes,
                                          ids);
  } else {
    segment_scan<uint32_t>(options_.simd)(classes_, scratch.wide_cache.next(num_bytes), scratch, text, num_bytes, ids);
  }
}

void Tokenizer::encode(const uint8_t* text, size_t num_bytes, bool split_special_tokens, Scratch& scratch,
                       IdBuffer& ids) const {
  for_each_part(
      text, num_bytes, split_special_tokens,
      [&](const uint8_t* begin, const uint8_t* end) {
        encode_plain(begin, static_cast<size_t>(end - begin), scratch, ids);
      },
      [&](const SpecialToken& token, const uint8_t*, const uint8_t*) { ids.push_back(token.id); });
}

void Tokenizer::encode_aligned(const uint8_t* text, size_t num_bytes, bool split_special_tokens, Scratch& scratch,
                               AlignedTokens& tokens) const {
  tokens = {};
  uint32_t char_index = 0, word_id = 0;
  const auto num_chars = [](const uint8_t* begin, const uint8_t* end) {
    return static_cast<uint32_t>(std::count_if(begin, end, [](uint8_t byte) { return !is_utf8_continuation(byte); }));
  };
  const auto add = [&](int32_t id, uint32_t begin, uint32_t end) {
    tokens.ids.push_back(id);
    tokens.begins.push_back(begin);
    tokens.ends.push_back(end);
    tokens.word_ids.push_back(word_id);
  };
  const auto add_word = [&](const uint8_t* word, size_t word_bytes, size_t word_chars, const uint32_t* sources) {
    wordpiece_.split(word, word_bytes, word_chars, scratch.pieces);
    size_t begin_byte = 0, begin_char = 0;
    for (const WordPiece::Piece& piece : scratch.pieces) {
      // the one piece of a word that is too long spans all of it, also what was not stored
      const bool whole = scratch.pieces.size() == 1;
      const size_t end_char = whole ? word_chars : begin_char + num_chars(word + begin_byte, word + piece.end);
      add(piece.id, sources[begin_char], sources[end_char - 1] + 1);
      begin_byte = piece.end;
      begin_char = end_char;
    }
    ++word_id;
  };
  for_each_part(
      text, num_bytes, split_special_tokens,
      [&](const uint8_t* begin, const uint8_t* end) {
        scratch.normalizer.aligned_words(begin, static_cast<size_t>(end - begin), char_index, add_word,
                                         wordpiece_.max_chars());
        char_index += num_chars(begin, end);
      },
      [&](const SpecialToken& token, const uint8_t* begin, const uint8_t* end) {
        const uint32_t end_char = char_index + num_chars(begin, end);
        add(token.id, char_index, end_char);
        char_index = end_char;
        ++word_id;
      });
}

}  // namespace fastbert
