// The rule of pair_merger.h with everything counted anew at each step: what the real one is measured against.
#pragma once
#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "vocab/pair_merger.h"

namespace fastbert {

struct PlainMerger {
  std::vector<std::vector<uint32_t>> words;
  std::vector<int64_t> counts;

  PairMerger::Best best() const {
    std::map<std::pair<uint32_t, uint32_t>, int64_t> pairs;
    for (size_t w = 0; w < words.size(); ++w)
      for (size_t i = 1; i < words[w].size(); ++i) pairs[{words[w][i - 1], words[w][i]}] += counts[w];
    PairMerger::Best best{0, 0, 0};
    for (const auto& [pair, count] : pairs)  // in the order of the ids: ties go to the smaller ones
      if (count > best.count) best = {pair.first, pair.second, count};
    return best;
  }

  void merge(const PairMerger::Best& pair, uint32_t merged) {
    for (auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] != pair.left || word[i + 1] != pair.right) continue;
        word[i] = merged;
        word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      }
  }
};

}  // namespace fastbert
