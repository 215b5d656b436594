#include "data/masker.h"

#include <algorithm>

#include "data/philox.h"
#include "data/token_bits.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(FASTBERT_PORTABLE)
#define FASTBERT_X86 1
#define FASTBERT_INLINE inline __attribute__((always_inline))  // into functions for other instruction sets
#else
#define FASTBERT_INLINE inline
#endif

namespace fastbert {
namespace {

// Sequences are worked through in tiles, so that the random words of a tile stay in the L1 cache.
constexpr int64_t kTileTokens = 2048;

// Set on a selected row that begins a span, whose rows all act alike.
constexpr int kSpanStartBit = 62;
constexpr int64_t kSpanStart = int64_t{1} << kSpanStartBit;

// Whole vectors of blocks, so that Philox has no slow tail; the extra blocks are drawn for nothing.
size_t round_up(size_t blocks) { return (blocks + 15) / 16 * 16; }

struct Scratch {
  std::vector<uint32_t> c0, c1, c2, words;
  std::vector<int64_t> selected;

  void reserve_blocks(size_t blocks) {
    blocks = round_up(blocks);
    if (c0.size() < blocks) {
      c0.resize(blocks), c1.resize(blocks), c2.resize(blocks);
      words.resize(4 * blocks + 16);  // read 16 at a time
    }
  }
};

// Random words for positions [begin, begin + length) of one sequence; begin is a multiple of 4.
void append_blocks(Scratch& s, size_t& at, int64_t sequence_id, int64_t begin, int64_t length, Purpose purpose) {
  const uint64_t id = static_cast<uint64_t>(sequence_id);
  const size_t blocks = static_cast<size_t>((length + 3) / 4);
  const uint32_t first = static_cast<uint32_t>(begin / 4), high = counter_high(id, purpose);
  for (size_t i = 0; i < blocks; ++i) s.c0[at + i] = first + static_cast<uint32_t>(i);
  std::fill_n(s.c1.begin() + at, blocks, static_cast<uint32_t>(id));
  std::fill_n(s.c2.begin() + at, blocks, high);
  at += blocks;
}

// What a walk over a sequence carries from one 64 tokens to the next.
struct Walk {
  uint64_t after_break = 1;  // 1: no maskable token of this sequence stands right before
  uint64_t chosen = 0;       // 1: the unit right before is chosen
  int64_t remaining = 0;     // units of the current span still to end, the one right before among them
};

// Up to 64 tokens as bits.
struct Units {
  uint64_t special;     // never chosen
  uint64_t starts;      // the first token of a word
  uint64_t run_starts;  // those right after a special token or the start of the sequence
  uint64_t continues;   // the other tokens of a word
};

Units find_units(const uint8_t* flags, const int64_t* ids, int count, const Walk& walk) {
  uint64_t special, continuation;
  flag_bits(flags, ids, count, special, continuation);
  const uint64_t maskable = ~special & lowest_bits(count);
  const uint64_t run_starts = maskable & (special << 1 | walk.after_break);
  const uint64_t starts = maskable & (~continuation | run_starts);
  return {special, starts, run_starts, maskable & ~starts};
}

// Bits of the tokens in chosen words.
uint64_t choose_words(const Units& units, uint64_t hits, int count, Walk& walk) {
  const uint64_t firsts = units.starts & hits;
  const uint64_t chosen = firsts | runs_beginning_at(units.continues, (firsts << 1 | walk.chosen) & units.continues);
  walk.chosen = chosen >> (count - 1) & 1;
  walk.after_break = units.special >> (count - 1) & 1;
  return chosen;
}

int64_t span_length(const uint64_t* below, uint32_t word) {
  int64_t length = 1;
  while (word >= below[length - 1]) ++length;
  return length;
}

// Bits of the tokens in spans; begins: of those that begin one.
uint64_t choose_spans(const MaskRule& rule, const Units& units, const uint32_t* words, int count, Walk& walk,
                      uint64_t& begins) {
  const uint64_t below = rule.span_below[kMaxSpan - 1], run_below = rule.run_below[kMaxSpan - 1];
  uint64_t candidates = 0;  // where a span begins unless it is inside another one
  if (below)
    candidates = units.starts & ~units.run_starts & bits_at_most(words, count, static_cast<uint32_t>(below - 1));
  if (run_below) candidates |= units.run_starts & bits_at_most(words, count, static_cast<uint32_t>(run_below - 1));
  uint64_t chosen = 0, stops = units.starts | units.special;  // stops: those not yet passed
  begins = 0;
  bool inside = walk.remaining > 0;
  for (int from = 0;;) {
    if (inside) {
      uint64_t end = 0;  // the stop that ends the span; 0: it goes on after these tokens
      for (; stops && !end; stops &= stops - 1) {
        const uint64_t stop = stops & (~stops + 1);
        walk.remaining = stop & units.special ? 0 : walk.remaining - 1;
        if (walk.remaining == 0) end = stop;
      }
      chosen |= (end ? end - 1 : lowest_bits(count)) & ~lowest_bits(from);
      if (!end) break;
      candidates &= ~(end - 1);
    }
    if (!candidates) break;
    from = lowest_bit(candidates);
    const uint64_t first = candidates & (~candidates + 1);
    begins |= first;
    candidates ^= first;
    stops = (units.starts | units.special) & ~(first | (first - 1));
    walk.remaining = span_length(first & units.run_starts ? rule.run_below : rule.span_below, words[from]);
    inside = true;
  }
  walk.after_break = units.special >> (count - 1) & 1;
  return chosen;
}

// Rows chosen among length tokens from row on, ascending, to out; returns how many.
size_t select_rows(const MaskRule& rule, const int64_t* ids, const uint32_t* words, uint64_t below, int64_t row,
                   int64_t length, Walk& walk, int64_t* out) {
  const uint32_t last = static_cast<uint32_t>(below - 1);
  size_t n = 0;
  for (int64_t end = row + length; row < end; row += 64, words += 64) {
    const int count = static_cast<int>(std::min<int64_t>(64, end - row));
    uint64_t chosen, begins = 0;
    if (rule.unit == MaskUnit::kToken) {
      for (chosen = bits_at_most(words, count, last); chosen; chosen &= chosen - 1) {
        const int64_t hit = row + lowest_bit(chosen);
        out[n] = hit;
        n += !(rule.flags[ids[hit]] & kSpecial);
      }
      continue;
    }
    const Units units = find_units(rule.flags, ids + row, count, walk);
    if (rule.unit == MaskUnit::kWord) chosen = choose_words(units, bits_at_most(words, count, last), count, walk);
    else chosen = choose_spans(rule, units, words, count, walk, begins);
    for (; chosen; chosen &= chosen - 1) {
      const int i = lowest_bit(chosen);
      out[n++] = (row + i) | static_cast<int64_t>(begins >> i & 1) << kSpanStartBit;
    }
  }
  return n;
}

// A threshold for every sequence (stride 1) or one for all (stride 0).
struct Below {
  const uint64_t* data;
  size_t stride;
  uint64_t operator[](size_t b) const { return data[b * stride]; }
};

class Selector {
 public:
  Selector(const MaskRule& rule, const MaskBatch& batch, Scratch& scratch)
      : rule_(rule),
        ids_(batch.input_ids),
        cu_(batch.cu_seqlens),
        sequence_ids_(batch.sequence_ids),
        below_{batch.select_below, batch.select_stride},
        count_(batch.num_sequences),
        s_(scratch) {}

  // Rows chosen, ascending, in scratch.selected; returns how many.
  size_t select() {
    s_.selected.resize(static_cast<size_t>(cu_[count_]) + 1);
    size_t n = 0;
    for_each_tile([&](size_t b, int64_t begin, int64_t length, const uint32_t* words, Walk& walk) {
      n += select_rows(rule_, ids_, words, below_[b], begin, length, walk, s_.selected.data() + n);
    });
    return n;
  }

  // The unit with the smallest word of the whole batch (the first of equals), when select() chose nothing.
  size_t select_smallest() {
    int64_t best = -1;
    uint32_t best_word = 0;
    for_each_tile([&](size_t, int64_t begin, int64_t length, const uint32_t* words, Walk& walk) {
      for (int64_t i = 0; i < length; ++i) {
        const uint8_t flag = rule_.flags[ids_[begin + i]];
        const bool special = flag & kSpecial;
        const bool starts = rule_.unit == MaskUnit::kToken || walk.after_break || !(flag & kContinuation);
        walk.after_break = special;
        if (special || !starts || (best >= 0 && words[i] >= best_word)) continue;
        best = begin + i, best_word = words[i];
      }
    });
    if (best < 0) return 0;
    const int64_t end = *std::upper_bound(cu_, cu_ + count_ + 1, best);
    size_t n = 0;
    s_.selected[n++] = best | kSpanStart;
    if (rule_.unit == MaskUnit::kToken) return n;
    for (int64_t i = best + 1; i < end && rule_.flags[ids_[i]] == kContinuation; ++i) s_.selected[n++] = i;
    return n;
  }

 private:
  template <class Body>
  void for_each_tile(Body body) {
    s_.reserve_blocks(kTileTokens / 4);
    for (size_t b = 0; b < count_;) {
      // as many whole sequences as fit one tile, or one tile after the other of a long one
      size_t e = b, blocks = 0;
      for (; e < count_; ++e) {
        const size_t need = below_[e] ? static_cast<size_t>((int64_t{cu_[e + 1]} - cu_[e] + 3) / 4) : 0;
        if (blocks + need > kTileTokens / 4) break;
        if (need) append_blocks(s_, blocks, sequence_ids_[e], 0, int64_t{cu_[e + 1]} - cu_[e], Purpose::kSelect);
      }
      if (e == b) {
        long_sequence(b++, body);
        continue;
      }
      draw(blocks);
      const uint32_t* words = s_.words.data();
      for (; b < e; ++b) {
        const int64_t length = int64_t{cu_[b + 1]} - cu_[b];
        if (!below_[b] || !length) continue;
        Walk walk;
        body(b, int64_t{cu_[b]}, length, words, walk);
        words += (length + 3) / 4 * 4;
      }
    }
  }

  template <class Body>
  void long_sequence(size_t b, Body& body) {
    Walk walk;
    const int64_t total = int64_t{cu_[b + 1]} - cu_[b];
    for (int64_t begin = 0; begin < total; begin += kTileTokens) {
      const int64_t length = std::min(kTileTokens, total - begin);
      size_t blocks = 0;
      append_blocks(s_, blocks, sequence_ids_[b], begin, length, Purpose::kSelect);
      draw(blocks);
      body(b, cu_[b] + begin, length, s_.words.data(), walk);
    }
  }

  void draw(size_t blocks) {
    blocks = round_up(blocks);
    philox_blocks(rule_.seed, s_.c0.data(), s_.c1.data(), s_.c2.data(), rule_.epoch, blocks, s_.words.data());
  }

  const MaskRule& rule_;
  const int64_t* ids_;
  const int32_t* cu_;
  const int64_t* sequence_ids_;
  Below below_;
  size_t count_;
  Scratch& s_;
};

// 80/10/10 for up to kReplaceTile chosen rows. words: their blocks (action, token, -, -). action: that of the span the
// first row goes on with, and then of the last row's.
constexpr size_t kReplaceTile = 256;

void replace_tile(const MaskRule& rule, const uint32_t* words, const int64_t* selected, size_t count, size_t opening,
                  uint32_t& action, int64_t* ids) {
  const uint64_t num_ordinary = static_cast<uint64_t>(rule.vocab_size) - rule.special_ids.size();
  int64_t tokens[kReplaceTile];
  uint32_t actions[kReplaceTile];
  for (size_t i = 0; i < count; ++i)
    tokens[i] = static_cast<int64_t>((words[4 * i + 1] * num_ordinary >> 32) + opening);
  for (size_t k = opening; k < rule.special_ids.size(); ++k)  // step over the special ids
    for (size_t i = 0; i < count; ++i) tokens[i] += rule.special_ids[k] <= tokens[i];
  for (size_t i = 0; i < count; ++i) {
    if (rule.unit != MaskUnit::kSpan || (selected[i] & kSpanStart)) action = words[4 * i];
    actions[i] = action;
  }
  const uint64_t mask_below = rule.mask_below, random_below = rule.random_below;
  const int64_t mask_id = rule.mask_id;
  for (size_t i = 0; i < count; ++i) {
    // all ones or zeros in place of branches that nobody can predict
    const int64_t masks = -static_cast<int64_t>(actions[i] < mask_below);
    const int64_t stays = -static_cast<int64_t>(actions[i] >= random_below);
    int64_t& id = ids[selected[i] & ~kSpanStart];
    id = (mask_id & masks) | (id & stays & ~masks) | (tokens[i] & ~stays & ~masks);
  }
}

// Puts [MASK], a random token or the token itself in each selected row; in a span all rows act as its first row does
// (SpanBERT replaces a span as a whole).
void replace(const MaskRule& rule, const MaskBatch& batch, size_t count, Scratch& s) {
  s.reserve_blocks(kReplaceTile);
  size_t opening = 0;  // special ids that open the vocabulary, as they mostly do, are stepped over at once
  while (opening < rule.special_ids.size() && rule.special_ids[opening] == static_cast<int64_t>(opening)) ++opening;
  uint32_t *c0 = s.c0.data(), *c1 = s.c1.data(), *c2 = s.c2.data();
  int64_t begin = 0, end = 0;  // of the sequence before b
  uint32_t action = 0, low = 0, high = 0;
  for (size_t first = 0, b = 0; first < count; first += kReplaceTile) {
    const int64_t* selected = s.selected.data() + first;
    const size_t here = std::min(kReplaceTile, count - first);
    for (size_t i = 0; i < here; ++i) {
      const int64_t row = selected[i] & ~kSpanStart;
      for (; row >= end; ++b) {
        const uint64_t id = static_cast<uint64_t>(batch.sequence_ids[b]);
        begin = batch.cu_seqlens[b], end = batch.cu_seqlens[b + 1];
        low = static_cast<uint32_t>(id), high = counter_high(id, Purpose::kReplace);
      }
      c0[i] = static_cast<uint32_t>(row - begin);
      c1[i] = low;
      c2[i] = high;
    }
    philox_blocks(rule.seed, c0, c1, c2, rule.epoch, round_up(here), s.words.data());
    replace_tile(rule, s.words.data(), selected, here, opening, action, batch.input_ids);
  }
}

// Negative when an id, or what is left above it, is.
FASTBERT_INLINE int64_t sign_of_all(const int64_t* ids, int64_t count, uint64_t vocab_size) {
  int64_t sign = 0;
  for (int64_t i = 0; i < count; ++i)
    sign |= ids[i] | static_cast<int64_t>(vocab_size - 1 - static_cast<uint64_t>(ids[i]));
  return sign;
}

#ifdef FASTBERT_X86
__attribute__((target("avx2"))) int64_t sign_of_all_avx2(const int64_t* ids, int64_t count, uint64_t vocab_size) {
  return sign_of_all(ids, count, vocab_size);
}
#endif

// The first row whose id is not in [0, vocab_size), or -1.
int64_t first_outside(const int64_t* ids, int64_t count, int64_t vocab_size) {
  const uint64_t size = static_cast<uint64_t>(vocab_size);
#ifdef FASTBERT_X86
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  const int64_t sign = has_avx2 ? sign_of_all_avx2(ids, count, size) : sign_of_all(ids, count, size);
#else
  const int64_t sign = sign_of_all(ids, count, size);
#endif
  if (sign >= 0) return -1;
  return std::find_if(ids, ids + count, [&](int64_t id) { return id < 0 || id >= vocab_size; }) - ids;
}

Scratch& scratch_of_thread() {
  static thread_local Scratch scratch;
  return scratch;
}

}  // namespace

int64_t select_mask(const MaskRule& rule, const MaskBatch& batch, size_t& count) {
  const int64_t bad = first_outside(batch.input_ids, batch.cu_seqlens[batch.num_sequences], rule.vocab_size);
  if (bad >= 0) return bad;
  Selector selector(rule, batch, scratch_of_thread());
  count = selector.select();
  if (count == 0) count = selector.select_smallest();
  return -1;
}

void finish_mask(const MaskRule& rule, const MaskBatch& batch, size_t count, int64_t* masked_index, int64_t* labels) {
  Scratch& scratch = scratch_of_thread();
  const int64_t* selected = scratch.selected.data();
  for (size_t i = 0; i < count; ++i) {
    masked_index[i] = selected[i] & ~kSpanStart;
    labels[i] = batch.input_ids[masked_index[i]];
  }
  replace(rule, batch, count, scratch);
}

int64_t mask_batch(const MaskRule& rule, const MaskBatch& batch, std::vector<int64_t>& masked_index,
                   std::vector<int64_t>& labels) {
  size_t count = 0;
  const int64_t bad = select_mask(rule, batch, count);
  if (bad >= 0) return bad;
  masked_index.resize(count);
  labels.resize(count);
  finish_mask(rule, batch, count, masked_index.data(), labels.data());
  return -1;
}

}  // namespace fastbert
