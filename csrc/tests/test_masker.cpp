#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "data/masker.h"
#include "naive_masker.h"
#include "data/token_bits.h"

using namespace fastbert;

namespace {

constexpr int64_t kVocab = 50;

struct Batch {
  std::vector<int64_t> ids, sequence_ids;
  std::vector<int32_t> cu{0};
  std::vector<uint64_t> below;
};

Batch random_batch(std::mt19937_64& random, size_t num_sequences, size_t longest, double rate) {
  Batch batch;
  for (size_t b = 0; b < num_sequences; ++b) {
    const size_t length = random() % (longest + 1);
    for (size_t i = 0; i < length; ++i) batch.ids.push_back(static_cast<int64_t>(random() % kVocab));
    batch.cu.push_back(static_cast<int32_t>(batch.ids.size()));
    batch.sequence_ids.push_back(static_cast<int64_t>(random() >> 8));
    batch.below.push_back(static_cast<uint64_t>(rate * 4294967296.0));
  }
  return batch;
}

MaskRule make_rule(MaskUnit unit, const std::vector<uint8_t>& flags, double rate) {
  MaskRule rule;
  rule.seed = 0xFEDCBA9876543210ull, rule.epoch = 3, rule.unit = unit, rule.mask_id = 4;
  rule.vocab_size = static_cast<int64_t>(flags.size()), rule.flags = flags.data();
  for (int64_t id = 0; id < rule.vocab_size; ++id)
    if (flags[static_cast<size_t>(id)] & kSpecial) rule.special_ids.push_back(id);
  rule.mask_below = 3435973836u, rule.random_below = 3865470566u;  // 80 %, 90 %
  for (int k = 0; k < kMaxSpan; ++k) {
    rule.span_below[k] = static_cast<uint64_t>(rate * (k + 1) / 30 * 4294967296.0);
    rule.run_below[k] = static_cast<uint64_t>(rate * (k + 1) / 10 * 4294967296.0);
  }
  return rule;
}

std::vector<uint8_t> make_flags(bool special_in_the_middle) {
  std::vector<uint8_t> flags(kVocab, 0);
  for (int64_t id = 0; id < kVocab; ++id)
    flags[static_cast<size_t>(id)] = id < 3 ? kSpecial : id % 3 ? 0 : kContinuation;
  if (special_in_the_middle) flags[0] = 0, flags[20] = flags[kVocab - 1] = kSpecial;
  return flags;
}

void check_same(const MaskRule& rule, const Batch& batch) {
  const naive::Masked expected = naive::mask(rule, batch.ids, batch.cu, batch.sequence_ids, batch.below);
  std::vector<int64_t> ids = batch.ids, masked_index, labels;
  const MaskBatch view{
      ids.data(), batch.cu.data(), batch.sequence_ids.data(), batch.sequence_ids.size(), batch.below.data(), 1};
  CHECK(mask_batch(rule, view, masked_index, labels) == -1);
  CHECK(masked_index == expected.masked_index);
  CHECK(labels == expected.labels);
  CHECK(ids == expected.input_ids);
}

}  // namespace

TEST_CASE("masker: as one token at a time, at every rate, unit and length") {
  std::mt19937_64 random(1);
  for (MaskUnit unit : {MaskUnit::kToken, MaskUnit::kWord, MaskUnit::kSpan}) {
    for (double rate : {0.0, 1e-9, 0.15, 0.7, 1.0}) {
      for (bool middle : {false, true}) {
        const std::vector<uint8_t> flags = make_flags(middle);
        const MaskRule rule = make_rule(unit, flags, rate);
        for (size_t longest : {1u, 5u, 63u, 64u, 65u, 200u}) check_same(rule, random_batch(random, 20, longest, rate));
        check_same(rule, random_batch(random, 3, 7000, rate));  // longer than a tile
        check_same(rule, random_batch(random, 0, 1, rate));
      }
    }
  }
}

TEST_CASE("masker: spans that begin only inside a run, or only at its start") {
  std::mt19937_64 random(4);
  const std::vector<uint8_t> flags = make_flags(false);
  for (bool inside : {false, true}) {
    MaskRule rule = make_rule(MaskUnit::kSpan, flags, 0.5);
    for (uint64_t& below : inside ? rule.run_below : rule.span_below) below = 0;
    check_same(rule, random_batch(random, 40, 200, 0.5));
  }
}

TEST_CASE("masker: a rate for every sequence, and one for all") {
  std::mt19937_64 random(2);
  const std::vector<uint8_t> flags = make_flags(false);
  const MaskRule rule = make_rule(MaskUnit::kWord, flags, 0.5);
  Batch batch = random_batch(random, 30, 100, 0.5);
  std::vector<int64_t> ids = batch.ids, index, labels, same_ids = batch.ids, same_index, same_labels;
  MaskBatch view{ids.data(), batch.cu.data(), batch.sequence_ids.data(), 30, batch.below.data(), 1};
  mask_batch(rule, view, index, labels);
  view.input_ids = same_ids.data(), view.select_stride = 0;
  mask_batch(rule, view, same_index, same_labels);
  CHECK(ids == same_ids);
  CHECK(index == same_index);
  for (size_t b = 0; b < 30; ++b) batch.below[b] = b % 3 == 0 ? 0 : b % 3 == 1 ? 1ull << 30 : 1ull << 32;
  check_same(rule, batch);
}

TEST_CASE("masker: an id outside the vocabulary is named and nothing is changed") {
  const std::vector<uint8_t> flags = make_flags(false);
  const MaskRule rule = make_rule(MaskUnit::kToken, flags, 1.0);
  for (int64_t bad : {int64_t{-1}, kVocab, INT64_MAX, INT64_MIN}) {
    std::vector<int64_t> ids(100, 7), index, labels;
    ids[42] = bad;
    const std::vector<int64_t> before = ids;
    const std::vector<int32_t> cu{0, 100};
    const std::vector<int64_t> sequence_ids{0};
    const uint64_t below = 1ull << 32;
    CHECK(mask_batch(rule, {ids.data(), cu.data(), sequence_ids.data(), 1, &below, 0}, index, labels) == 42);
    CHECK(ids == before);
  }
}

TEST_CASE("token bits") {
  std::mt19937 random(3);
  std::vector<uint32_t> words(80);
  std::vector<int64_t> ids(64);
  std::vector<uint8_t> flags(256);
  for (int i = 0; i < 256; ++i) flags[static_cast<size_t>(i)] = static_cast<uint8_t>(i & 3);
  for (int count = 1; count <= 64; ++count) {
    for (uint32_t& w : words) w = random();
    for (int64_t& id : ids) id = random() % 256;
    for (uint32_t last : {0u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu, words[0]}) {
      uint64_t expected = 0;
      for (int i = 0; i < count; ++i) expected |= uint64_t{words[static_cast<size_t>(i)] <= last} << i;
      CHECK(bits_at_most(words.data(), count, last) == expected);
    }
    uint64_t low, high, expected_low = 0, expected_high = 0;
    flag_bits(flags.data(), ids.data(), count, low, high);
    for (int i = 0; i < count; ++i) {
      expected_low |= uint64_t(ids[static_cast<size_t>(i)] & 1) << i;
      expected_high |= uint64_t(ids[static_cast<size_t>(i)] >> 1 & 1) << i;
    }
    CHECK(low == expected_low);
    CHECK(high == expected_high);
  }
  CHECK(runs_beginning_at(0b0111'0110'1110, 0b0001'0000'0010) == 0b0111'0000'1110);
  CHECK(runs_beginning_at(~uint64_t{0}, 1) == ~uint64_t{0});
  CHECK(lowest_bits(64) == ~uint64_t{0});
  CHECK(lowest_bits(0) == 0);
}
