// Any batch, rule and rate: the masker gives what masking one token at a time gives, and what it gives for the same
// sequences packed otherwise (in two batches, where each has a masked token).
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "../tests/naive_masker.h"
#include "data/masker.h"

using namespace fastbert;

namespace {

// Bytes of the input, zeros when they are used up.
struct Input {
  const uint8_t* data;
  size_t size;
  uint8_t byte() { return size ? --size, *data++ : 0; }
  uint64_t number(int bytes) {
    uint64_t n = 0;
    while (bytes-- > 0) n = n << 8 | byte();
    return n;
  }
};

void check(bool good) {
  if (!good) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in{data, size};
  const int64_t vocab = 6 + in.byte() % 10;
  std::vector<uint8_t> flags(static_cast<size_t>(vocab));
  MaskRule rule;
  for (int64_t id = 0; id < vocab; ++id) {
    const uint8_t flag = in.byte() % 4;
    flags[static_cast<size_t>(id)] = flag == 3 ? 0 : flag;
    // the last id is never special: there must be one to draw
    if (flag == kSpecial && id + 1 < vocab) rule.special_ids.push_back(id);
    else if (flag == kSpecial) flags[static_cast<size_t>(id)] = 0;
  }
  rule.seed = in.number(8), rule.epoch = static_cast<uint32_t>(in.number(4));
  rule.unit = static_cast<MaskUnit>(in.byte() % 3);
  rule.mask_id = in.byte() % vocab, rule.vocab_size = vocab, rule.flags = flags.data();
  rule.mask_below = static_cast<uint64_t>(in.byte() % 17) << 28;
  rule.random_below = rule.mask_below + (static_cast<uint64_t>(in.byte() % 17) << 28);
  if (rule.random_below > uint64_t{1} << 32) rule.random_below = uint64_t{1} << 32;
  uint64_t span = 0, run = 0;
  for (int k = 0; k < kMaxSpan; ++k) {
    rule.span_below[k] = span += static_cast<uint64_t>(in.byte()) << 20;
    rule.run_below[k] = run += static_cast<uint64_t>(in.byte()) << 20;
  }
  if (in.byte() % 8 == 0) rule.span_below[kMaxSpan - 1] = rule.run_below[kMaxSpan - 1] = uint64_t{1} << 32;

  std::vector<int64_t> ids, sequence_ids;
  std::vector<int32_t> cu{0};
  std::vector<uint64_t> below;
  const bool one_rate = in.byte() % 2;
  uint64_t rate = in.number(5) % ((uint64_t{1} << 32) + 1);
  while (in.size) {
    const size_t length = in.byte() * (in.byte() % 16 == 0 ? 20u : 1u);  // some longer than a tile
    for (size_t i = 0; i < length; ++i) ids.push_back(in.size ? in.byte() % vocab : static_cast<int64_t>(i) % vocab);
    cu.push_back(static_cast<int32_t>(ids.size()));
    sequence_ids.push_back(static_cast<int64_t>(in.number(7)));
    if (!one_rate && rule.unit != MaskUnit::kSpan) rate = (in.byte() % 17) * (uint64_t{1} << 28);
    below.push_back(rate);
  }
  const size_t count = sequence_ids.size();

  const naive::Masked expected = naive::mask(rule, ids, cu, sequence_ids, below);
  std::vector<int64_t> masked = ids, index, labels;
  check(mask_batch(rule, {masked.data(), cu.data(), sequence_ids.data(), count, below.data(), 1}, index, labels) == -1);
  check(masked == expected.input_ids && index == expected.masked_index && labels == expected.labels);

  // the same sequences as two batches
  const size_t half = count / 2;
  std::vector<int64_t> first(ids.begin(), ids.begin() + cu[half]), second(ids.begin() + cu[half], ids.end());
  std::vector<int32_t> second_cu(cu.begin() + static_cast<std::ptrdiff_t>(half), cu.end());
  for (int32_t& c : second_cu) c -= cu[half];
  std::vector<int64_t> index_a, index_b;
  mask_batch(rule, {first.data(), cu.data(), sequence_ids.data(), half, below.data(), 1}, index_a, labels);
  mask_batch(rule, {second.data(), second_cu.data(), sequence_ids.data() + half, count - half, below.data() + half, 1},
             index_b, labels);
  bool chosen_a = false, chosen_b = false;  // by the whole batch; where not, "at least one" is another one
  for (int64_t row : index) (row < cu[half] ? chosen_a : chosen_b) = true;
  if (index.size() > 1 && chosen_a && chosen_b) {
    first.insert(first.end(), second.begin(), second.end());
    check(first == masked && index_a.size() + index_b.size() == index.size());
  }
  return 0;
}
