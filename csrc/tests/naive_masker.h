// The masker one token at a time, with no tiles, bits or vectors: the oracle of test_masker.cpp and fuzz_masker.cpp.
#pragma once
#include <cstdint>
#include <vector>

#include "data/masker.h"
#include "data/philox.h"

namespace fastbert::naive {

struct Masked {
  std::vector<int64_t> input_ids, masked_index, labels;
};

inline uint32_t word(const MaskRule& rule, int64_t sequence_id, uint32_t block, Purpose purpose, int which) {
  const uint64_t id = static_cast<uint64_t>(sequence_id);
  const uint32_t c0 = block, c1 = static_cast<uint32_t>(id), c2 = counter_high(id, purpose);
  uint32_t out[4];
  philox_blocks_on(0, rule.seed, &c0, &c1, &c2, rule.epoch, 1, out);
  return out[which];
}

inline int64_t span_length(const uint64_t* below, uint32_t w) {
  for (int k = 0; k < kMaxSpan; ++k)
    if (w < below[k]) return k + 1;
  return 0;
}

inline Masked mask(const MaskRule& rule, const std::vector<int64_t>& ids, const std::vector<int32_t>& cu,
                   const std::vector<int64_t>& sequence_ids, const std::vector<uint64_t>& select_below) {
  Masked result{ids, {}, {}};
  std::vector<int64_t> leader(ids.size(), -1);  // of a chosen row: the row whose action it takes
  int64_t smallest = -1;
  uint32_t smallest_word = 0;
  auto special = [&](int64_t row) { return (rule.flags[ids[row]] & kSpecial) != 0; };
  auto starts = [&](int64_t row, int64_t begin) {
    return rule.unit == MaskUnit::kToken || row == begin || special(row - 1) || !(rule.flags[ids[row]] & kContinuation);
  };
  for (size_t b = 0; b + 1 < cu.size(); ++b) {
    if (select_below[b] == 0) continue;
    int64_t remaining = 0, span = -1;
    bool chosen = false;
    for (int64_t row = cu[b]; row < cu[b + 1]; ++row) {
      if (special(row)) continue;
      const uint32_t position = static_cast<uint32_t>(row - cu[b]);
      if (starts(row, cu[b])) {
        const uint32_t w = word(rule, sequence_ids[b], position / 4, Purpose::kSelect, position % 4);
        if (smallest < 0 || w < smallest_word) smallest = row, smallest_word = w;
        const bool run_start = row == cu[b] || special(row - 1);
        if (rule.unit != MaskUnit::kSpan) {
          chosen = w < select_below[b];
        } else {
          remaining = run_start ? 0 : remaining - 1;
          if (remaining <= 0) remaining = span_length(run_start ? rule.run_below : rule.span_below, w), span = row;
          chosen = remaining > 0;
        }
      }
      if (chosen) leader[row] = rule.unit == MaskUnit::kSpan ? span : row;
    }
  }
  for (int64_t l : leader) smallest = l >= 0 ? -1 : smallest;
  for (size_t b = 0; b + 1 < cu.size() && smallest >= 0; ++b) {
    if (smallest < cu[b] || smallest >= cu[b + 1]) continue;
    int64_t row = smallest;
    do leader[row] = rule.unit == MaskUnit::kSpan ? smallest : row;
    while (++row < cu[b + 1] && !special(row) && !starts(row, cu[b]));
  }
  std::vector<int64_t> ordinary;
  for (int64_t id = 0; id < rule.vocab_size; ++id) {
    bool is_special = false;
    for (int64_t s : rule.special_ids) is_special = is_special || s == id;
    if (!is_special) ordinary.push_back(id);
  }
  for (size_t b = 0; b + 1 < cu.size(); ++b) {
    for (int64_t row = cu[b]; row < cu[b + 1]; ++row) {
      if (leader[row] < 0) continue;
      result.masked_index.push_back(row);
      result.labels.push_back(ids[row]);
      const uint32_t position = static_cast<uint32_t>(row - cu[b]);
      const uint32_t leading = static_cast<uint32_t>(leader[row] - cu[b]);
      const uint32_t action = word(rule, sequence_ids[b], leading, Purpose::kReplace, 0);
      const uint64_t pick = word(rule, sequence_ids[b], position, Purpose::kReplace, 1);
      if (action < rule.mask_below) result.input_ids[row] = rule.mask_id;
      else if (action < rule.random_below) result.input_ids[row] = ordinary[pick * ordinary.size() >> 32];
    }
  }
  return result;
}

}  // namespace fastbert::naive
