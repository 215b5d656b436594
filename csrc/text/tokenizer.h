// Text to ids: special tokens, normalised words, pieces.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/normalizer.h"
#include "text/segment_scan.h"
#include "text/tokenizer_ids.h"
#include "text/tokenizer_text.h"
#include "text/wordpiece.h"

namespace fastbert {

struct SpecialToken {
  std::string text;  // not empty
  int32_t id;
};

struct TokenizerOptions {
  NormalizerOptions normalizer;
  size_t max_input_chars_per_word = 100;
  SimdLevel simd = best_simd_level();  // changes the speed, never a result
};

// Tokens of one text with where they came from, in characters of the text. All four have the same length.
struct AlignedTokens {
  std::vector<int32_t> ids;
  std::vector<uint32_t> begins, ends;
  std::vector<uint32_t> word_ids;  // counts words, punctuation characters and special tokens
};

// Immutable; one Scratch per thread holds whatever changes.
class Tokenizer {
 public:
  // ids are places in vocab. Special tokens are found in the raw text, before any normalisation.
  Tokenizer(const std::vector<std::string>& vocab, int32_t unk_id, std::vector<SpecialToken> special_tokens,
            const TokenizerOptions& options);

  struct Scratch : private SegmentEncoder {
    explicit Scratch(const Tokenizer& tokenizer);
    // So much text is about to be encoded.
    void expect(size_t num_bytes);

   private:
    friend class Tokenizer;
    void encode_segment(const uint8_t* text, size_t num_bytes, IdBuffer& ids) override;

    const Tokenizer& tokenizer;
    Normalizer normalizer;
    std::vector<WordPiece::Piece> pieces;
    GrowingCache<uint16_t> narrow_cache;  // of vocabularies of up to 65,536 entries
    GrowingCache<uint32_t> wide_cache;
  };

  // Appends the ids of a UTF-8 text to `ids`. No [CLS] nor [SEP] is added.
  // split_special_tokens: special tokens in the text are ordinary text.
  void encode(const uint8_t* text, size_t num_bytes, bool split_special_tokens, Scratch& scratch, IdBuffer& ids) const;

  // The same ids with their places. `tokens` is cleared first.
  void encode_aligned(const uint8_t* text, size_t num_bytes, bool split_special_tokens, Scratch& scratch,
                      AlignedTokens& tokens) const;

  const TokenizerOptions& options() const { return options_; }
  bool has_narrow_ids() const { return narrow_ids_; }  // every id fits in 16 bits

 private:
  // Calls plain(begin, end) and special(token, begin, end) (bytes) for the parts of a text, in order.
  template <class Plain, class Special>
  void for_each_part(const uint8_t* text, size_t num_bytes, bool split_special_tokens, Plain&& plain,
                     Special&& special) const;
  const SpecialToken* special_at(const uint8_t* text, size_t num_bytes) const;
  const uint8_t* next_candidate(const uint8_t* p, const uint8_t* end) const;
  void encode_plain(const uint8_t* text, size_t num_bytes, Scratch& scratch, IdBuffer& ids) const;

  TokenizerOptions options_;
  SegmentClasses classes_;
  bool narrow_ids_;
  WordPiece wordpiece_;
  std::vector<SpecialToken> special_tokens_;  // longest first
  std::array<bool, 256> starts_special_{};
  int only_start_ = -1;  // the byte that starts every special token, when there is just one
};

}  // namespace fastbert
