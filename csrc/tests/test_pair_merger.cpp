#include "vocab/pair_merger.h"

#include <doctest/doctest.h>

#include <random>

#include "plain_merger.h"

using fastbert::PairMerger;
using fastbert::PlainMerger;

TEST_CASE("pair merger: the same merges as counting anew each time") {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    PlainMerger plain;
    PairMerger merger;
    const uint32_t num_letters = 1 + random() % 5;
    for (int w = 0; w < 60; ++w) {
      std::vector<uint32_t> word(2 + random() % (round % 3 ? 8 : 60));
      for (uint32_t& piece : word) piece = random() % num_letters;
      plain.words.push_back(word);
      plain.counts.push_back(1 + random() % 3);
      merger.add_word(plain.words.back(), plain.counts.back());
    }
    merger.finish_words();
    uint32_t next = num_letters;
    for (int step = 0; step < 2000; ++step) {
      const PairMerger::Best expected = plain.best(), got = merger.best();
      REQUIRE(got.count == expected.count);
      if (got.count == 0) break;
      REQUIRE(got.left == expected.left);
      REQUIRE(got.right == expected.right);
      // sometimes an id that is in use already, as when two pairs give one string; never one of the pair itself
      uint32_t merged = next;
      if (next > num_letters && random() % 4 == 0) merged = num_letters + random() % (next - num_letters);
      if (merged == got.left || merged == got.right) merged = next;
      if (merged == next) ++next;
      plain.merge(expected, merged);
      merger.merge(got, merged);
    }
  }
}

TEST_CASE("pair merger: counts of more than 32 bits, and no words at all") {
  PairMerger merger;
  merger.add_word({0, 1}, (int64_t{1} << 62) + 1);
  merger.add_word({2, 3}, int64_t{1} << 33);
  merger.finish_words();
  const PairMerger::Best best = merger.best();
  CHECK(best.count == (int64_t{1} << 62) + 1);
  CHECK(best.left == 0);
  PairMerger empty;
  empty.finish_words();
  CHECK(empty.best().count == 0);
}
