// Any lengths and budget: every sequence in one batch, no batch empty or over the budget, and no more batches than one
// in a hundred above a plain best-fit-decreasing.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <vector>

#include "data/packer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const int64_t batch_tokens = 1 + data[0] + 256 * (data[1] % 40);
  const int64_t scale = 1 + data[2] % 8;
  std::vector<int64_t> lengths;
  for (size_t i = 3; i < size; ++i) lengths.push_back(1 + (data[i] * scale) % batch_tokens);
  std::vector<int64_t> batch_of;
  const int64_t count = fastbert::pack_batches(lengths.data(), lengths.size(), batch_tokens, batch_of);
  std::vector<int64_t> loads(static_cast<size_t>(count), 0);
  for (size_t i = 0; i < lengths.size(); ++i) loads.at(static_cast<size_t>(batch_of.at(i))) += lengths[i];
  for (int64_t load : loads)
    if (load <= 0 || load > batch_tokens) abort();

  std::sort(lengths.begin(), lengths.end(), std::greater<int64_t>());
  std::vector<int64_t> rooms;
  for (int64_t length : lengths) {
    auto best = rooms.end();
    for (auto room = rooms.begin(); room != rooms.end(); ++room)
      if (*room >= length && (best == rooms.end() || *room < *best)) best = room;
    if (best == rooms.end()) rooms.push_back(batch_tokens - length);
    else *best -= length;
  }
  const int64_t fewest = static_cast<int64_t>(rooms.size());
  if (count != fewest && count != fewest + fewest / 100) abort();
  return 0;
}
