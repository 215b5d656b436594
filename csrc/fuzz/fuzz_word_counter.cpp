// Counting: any text, in any chunks, blocks, threads and table sizes, gives the same counts, or the same fault.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>

#include "vocab/word_counter.h"

namespace {

using fastbert::CountTable;
using fastbert::WordCounter;

struct Outcome {
  std::map<std::string, int64_t> counts;
  size_t fault = SIZE_MAX;

  bool operator==(const Outcome& other) const {
    return fault == other.fault && (fault != SIZE_MAX || counts == other.counts);
  }
};

Outcome count(const uint8_t* text, size_t size, uint8_t flags, int threads, size_t block, WordCounter::Limits limits) {
  const fastbert::NormalizerOptions options{(flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0, (flags & 8) != 0};
  WordCounter counter(options, threads, limits);
  Outcome outcome;
  size_t used = 0;
  try {
    for (size_t end = block; end < size; end += block) used += counter.add_bytes(text + used, end - used, false);
    used += counter.add_bytes(text + used, size - used, true);
    if (used != size) std::abort();
    counter.read([&](const CountTable& table) {
      table.for_each([&](const CountTable::Slot& slot) {
        outcome.counts[std::string(slot.bytes, slot.bytes + slot.size)] = slot.count;
      });
    });
  } catch (const fastbert::InvalidUtf8& error) {
    outcome.fault = used + error.offset;
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  WordCounter::Limits whole;
  whole.longest_run = 4 + data[0] % 64;
  whole.chunk_bytes = whole.longest_run;
  WordCounter::Limits small = whole;
  small.chunk_bytes = 1 + data[1] % whole.longest_run;
  small.max_segment_bytes = data[2] % 16;
  small.max_segments = 1 + data[2] / 16;
  small.max_thread_words = 1 + data[2] % 7;
  const uint8_t flags = data[3] & 15;
  const Outcome expected = count(data + 4, size - 4, flags, 1, size, whole);
  const Outcome chunked = count(data + 4, size - 4, flags, 1 + data[3] / 128, 1 + data[3] / 16, small);
  if (!(chunked == expected)) std::abort();
  return 0;
}
