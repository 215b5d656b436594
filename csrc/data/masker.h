// Chooses which tokens of a packed batch the model must guess, and puts [MASK] or another token in their place.
//
// Every decision is one Philox word keyed by (seed, epoch, sequence id) and counted by the position in the sequence, so
// a sequence is masked the same wherever it is packed. fastbert/data/batches/masking.py is the readable twin,
// byte-identical.
// References: Devlin et al. 2019 (80/10/10, whole words); Joshi et al. 2020, SpanBERT (spans).
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastbert {

enum class MaskUnit { kToken = 0, kWord = 1, kSpan = 2 };

constexpr uint8_t kSpecial = 1, kContinuation = 2;  // bits of MaskRule::flags
constexpr int kMaxSpan = 10;                        // units in the longest span

struct MaskRule {
  uint64_t seed = 0;
  uint32_t epoch = 0;
  MaskUnit unit = MaskUnit::kToken;
  int64_t mask_id = 0;
  int64_t vocab_size = 0;
  const uint8_t* flags = nullptr;    // (vocab_size,) kSpecial, kContinuation
  std::vector<int64_t> special_ids;  // ascending, each once, all below vocab_size
  uint64_t mask_below = 0;           // action word < mask_below: [MASK] ...
  uint64_t random_below = 0;         // ... else < random_below: a random token, else left as it is
  // A word below span_below[k] and not below the entry before starts a span of k + 1 units; run_below is the same for
  // the first unit after a special token or the start of the sequence.
  uint64_t span_below[kMaxSpan] = {};
  uint64_t run_below[kMaxSpan] = {};
};

struct MaskBatch {
  int64_t* input_ids;           // (cu_seqlens[num_sequences],)
  const int32_t* cu_seqlens;    // (num_sequences + 1,) from 0, not descending
  const int64_t* sequence_ids;  // (num_sequences,) in [0, 2^56)
  size_t num_sequences;
  // Of sequence b: select_below[b * select_stride]. A unit is chosen when its word is below; 0 leaves the sequence
  // alone (spans use the rule's tables, and 0 here all the same).
  const uint64_t* select_below;
  size_t select_stride;
};

// Chooses rows and keeps them for finish_mask; count: how many. When no unit of the whole batch is chosen, the one with
// the smallest word is, so that a loss over the masked tokens is never 0 / 0.
// Returns -1, or the first row whose id is not in [0, vocab_size).
int64_t select_mask(const MaskRule& rule, const MaskBatch& batch, size_t& count);

// Masks the rows that the last select_mask of this thread chose, in place. masked_index (count,), labels (count,): the
// rows, ascending, and their true tokens.
void finish_mask(const MaskRule& rule, const MaskBatch& batch, size_t count, int64_t* masked_index, int64_t* labels);

// Both in one.
int64_t mask_batch(const MaskRule& rule, const MaskBatch& batch, std::vector<int64_t>& masked_index,
                   std::vector<int64_t>& labels);

}  // namespace fastbert
