// Many texts to one flat array of ids, on several threads.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "text/segment_cache.h"
#include "text/tokenizer.h"

namespace fastbert {

enum class Truncation { kNone, kLongestFirst, kOnlyFirst, kOnlySecond };

struct BatchOptions {
  bool add_special_tokens = true;  // [CLS] A [SEP], or [CLS] A [SEP] B [SEP]
  bool split_special_tokens = false;
  bool with_offsets = false;
  Truncation truncation = Truncation::kNone;
  bool truncate_left = false;  // cut at the beginning of a text instead of its end
  size_t max_length = 0;       // in tokens, the special ones included
  int32_t cls_id = -1, sep_id = -1;
  int threads = 0;  // <= 0: all that the process may use
};

// How many tokens two sequences keep under the reference's truncation rules. num_second < 0: there is no second.
struct KeptLengths {
  size_t first, second;
};
KeptLengths kept_lengths(size_t num_first, int64_t num_second, const BatchOptions& options);

// Memory that only grows and is freed at once: ids wait there until their number is known. In large pages, unless the
// whole need is small. One per thread.
class IdArena {
 public:
  explicit IdArena(bool large) : large_(large) {}
  void* allocate(size_t num_bytes);

 private:
  static constexpr size_t kBlockBytes = size_t{4} << 20;
  bool large_;
  std::vector<std::unique_ptr<PageBlock>> blocks_;
  std::vector<std::unique_ptr<uint8_t[]>> small_blocks_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0;
};

// Ids of B sequences, still in the threads' own memory.
class EncodedBatch {
 public:
  size_t num_texts() const { return chunks_.empty() ? 0 : chunks_.back().last; }
  size_t num_tokens() const { return static_cast<size_t>(num_tokens_); }
  // Where the tokens of each text begin: num_texts() + 1 numbers.
  void copy_offsets(int64_t* out, int threads) const;
  // Id is int32_t or uint16_t; `out` holds num_tokens(). The caller checks that the ids fit.
  template <class Id>
  void copy_ids(Id* out, int threads) const;
  // 0 for [CLS] A [SEP], 1 for B [SEP]. offsets: from copy_offsets.
  void copy_type_ids(const int64_t* offsets, int32_t* out) const;
  // (begin, end) of every token, in characters of its text; (0, 0) for the special tokens that were added.
  void copy_char_offsets(int32_t* out) const;

 private:
  friend class BatchEncoder;
  struct Chunk {
    size_t first = 0, last = 0;    // texts
    std::vector<int64_t> lengths;  // of each text, in tokens
    const void* ids = nullptr;     // uint16_t or int32_t, see narrow_
    size_t num_ids = 0;
    std::vector<uint32_t> second_begins;  // with pairs, by sequence: where its second text begins
    std::vector<int32_t> char_offsets;    // with offsets: 2 by token
    int64_t token_begin = 0;
  };
  std::vector<Chunk> chunks_;
  std::vector<std::unique_ptr<IdArena>> arenas_;  // by worker
  bool narrow_ = false;
  int64_t num_tokens_ = 0;
};

// Keeps the threads' scratch memory, hence their caches, from one batch to the next. Safe to call from several threads.
class BatchEncoder {
 public:
  explicit BatchEncoder(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}

  // pairs is empty or as long as texts. InputError names the index of the text at fault.
  EncodedBatch encode(const std::vector<TextView>& texts, const std::vector<TextView>& pairs,
                      const BatchOptions& options);

  // Every line of a UTF-8 text, as split_lines finds them. The threads look for the lines too.
  EncodedBatch encode_lines(const uint8_t* data, size_t size, const BatchOptions& options);

  // See Tokenizer::encode_aligned.
  void encode_aligned(const ByteSpan& text, bool split_special_tokens, AlignedTokens& tokens);

  const Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  struct Worker {
    explicit Worker(const Tokenizer& tokenizer) : scratch(tokenizer) {}
    Tokenizer::Scratch scratch;
    std::vector<uint8_t> utf8;
    IdBuffer ids;  // of the chunk that is going on
    IdBuffer first, second;
    AlignedTokens first_tokens, second_tokens;
  };
  std::unique_ptr<Worker> take_worker();
  void give_back(std::unique_ptr<Worker> worker);

  // Has encode_chunk(index, worker, chunk) fill chunk.lengths and worker.ids for every chunk, on several threads.
  template <class EncodeChunk>
  void encode_chunks(EncodedBatch& batch, size_t size, const BatchOptions& options, EncodeChunk&& encode_chunk);
  void encode_text(const TextView& text, const TextView* pair, Worker& worker, const BatchOptions& options,
                   EncodedBatch::Chunk& chunk) const;
  void encode_one(const TextView& text, Worker& worker, const BatchOptions& options) const;
  void encode_pair(const TextView& text, const TextView* pair, Worker& worker, const BatchOptions& options,
                   EncodedBatch::Chunk& chunk) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> idle_;
};

}  // namespace fastbert
