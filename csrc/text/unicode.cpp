#include "text/unicode.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "tables/unicode_tables.h"

namespace fastbert {
namespace {

constexpr uint32_t kHangulFirst = 0xAC00;
constexpr uint32_t kHangulCount = 11172;

template <size_t N>
void mark(std::vector<uint16_t>& facts, const CodePointRange (&ranges)[N], uint16_t flag) {
  for (const auto& range : ranges)
    for (uint32_t c = range.first; c <= range.last; ++c) facts[c] |= flag;
}

std::vector<uint16_t> build_facts() {
  std::vector<uint16_t> facts(kNumCodePoints, 0);
  mark(facts, kRemoved, kFlagRemoved);
  mark(facts, kCleanSpace, kFlagCleanSpace);
  mark(facts, kWhiteSpace, kFlagWhiteSpace);
  mark(facts, kPunctuation, kFlagPunctuation);
  mark(facts, kIdeograph, kFlagIdeograph);
  mark(facts, kNonspacing, kFlagNonspacing);
  for (const auto& run : kCombiningClasses)
    for (uint32_t c = run.first; c <= run.last; ++c) facts[c] |= static_cast<uint16_t>(run.combining_class);
  for (const auto& run : kLowerRuns)
    for (uint32_t c = run.first; c <= run.last; c += run.step) facts[c] |= kFlagLower;
  for (const auto& map : kLowerExpansions) facts[map.from] |= kFlagLower;
  for (const auto& map : kDecompositions) facts[map.from] |= kFlagDecomposes;
  for (uint32_t i = 0; i < kHangulCount; ++i) facts[kHangulFirst + i] |= kFlagDecomposes;
  return facts;
}

template <size_t N>
int find_map(const CodePointMap (&maps)[N], uint32_t code_point, uint32_t* out) {
  const auto* found = std::lower_bound(std::begin(maps), std::end(maps), code_point,
                                       [](const CodePointMap& map, uint32_t c) { return map.from < c; });
  if (found == std::end(maps) || found->from != code_point) return 0;
  int count = 0;
  for (uint32_t c : found->to)
    if (c) out[count++] = c;
  return count;
}

}  // namespace

const uint16_t* code_point_facts() {
  static const std::vector<uint16_t> facts = build_facts();
  return facts.data();
}

int lower_case(uint32_t code_point, uint32_t* out) {
  out[0] = code_point;
  if (!(code_point_facts()[code_point] & kFlagLower)) return 1;
  if (int count = find_map(kLowerExpansions, code_point, out)) return count;
  const auto* run = std::lower_bound(std::begin(kLowerRuns), std::end(kLowerRuns), code_point,
                                     [](const LowerRun& r, uint32_t c) { return r.last < c; });
  // runs of step 2 may interleave: the flag says that one of the next runs holds the code point
  while (code_point < run->first || (code_point - run->first) % run->step) ++run;
  out[0] = code_point + static_cast<uint32_t>(run->delta);
  return 1;
}

int decompose(uint32_t code_point, uint32_t* out) {
  out[0] = code_point;
  if (!(code_point_facts()[code_point] & kFlagDecomposes)) return 1;
  if (code_point >= kHangulFirst && code_point < kHangulFirst + kHangulCount) {
    // Unicode Standard, section 3.12
    const uint32_t index = code_point - kHangulFirst;
    out[0] = 0x1100 + index / 588;
    out[1] = 0x1161 + index % 588 / 28;
    out[2] = 0x11A7 + index % 28;
    return index % 28 ? 3 : 2;
  }
  return find_map(kDecompositions, code_point, out);
}

}  // namespace fastbert
