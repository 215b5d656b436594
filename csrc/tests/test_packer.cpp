#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "data/packer.h"

using namespace fastbert;

namespace {

// Textbook best-fit-decreasing, quadratic: how many batches.
int64_t plain_best_fit(std::vector<int64_t> lengths, int64_t batch_tokens) {
  std::sort(lengths.rbegin(), lengths.rend());
  std::vector<int64_t> rooms;
  for (int64_t length : lengths) {
    auto best = rooms.end();
    for (auto room = rooms.begin(); room != rooms.end(); ++room)
      if (*room >= length && (best == rooms.end() || *room < *best)) best = room;
    if (best == rooms.end()) rooms.push_back(batch_tokens - length);
    else *best -= length;
  }
  return static_cast<int64_t>(rooms.size());
}

std::vector<int64_t> loads_of(const std::vector<int64_t>& lengths, const std::vector<int64_t>& batch_of,
                              int64_t count) {
  std::vector<int64_t> loads(static_cast<size_t>(count), 0);
  for (size_t i = 0; i < lengths.size(); ++i) loads[static_cast<size_t>(batch_of[i])] += lengths[i];
  return loads;
}

}  // namespace

TEST_CASE("packer: budgets kept, no batch empty, as few as best-fit-decreasing or one in a hundred more") {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    // budgets about the sizes of the levels of the bit set: 64, 64 * 64
    const int64_t batch_tokens = round % 3 == 0 ? 60 + round % 10 : round % 3 == 1 ? 4090 + round % 12 : 300;
    std::vector<int64_t> lengths(random() % 400);
    for (int64_t& length : lengths) length = 1 + random() % std::min<int64_t>(batch_tokens, 150);
    std::vector<int64_t> batch_of;
    const int64_t count = pack_batches(lengths.data(), lengths.size(), batch_tokens, batch_of);
    const int64_t fewest = plain_best_fit(lengths, batch_tokens);
    CHECK((count == fewest || count == fewest + fewest / 100));
    REQUIRE(batch_of.size() == lengths.size());
    for (int64_t load : loads_of(lengths, batch_of, count)) {
      CHECK(load > 0);
      CHECK(load <= batch_tokens);
    }
  }
}

TEST_CASE("packer: batches are filled alike where there is room") {
  std::mt19937 random(2);
  std::vector<int64_t> lengths(5000);
  for (int64_t& length : lengths) length = 3 + random() % 126;
  std::vector<int64_t> batch_of;
  const int64_t count = pack_batches(lengths.data(), lengths.size(), 4096, batch_of);
  const std::vector<int64_t> loads = loads_of(lengths, batch_of, count);
  const auto [least, most] = std::minmax_element(loads.begin(), loads.end());
  CHECK(*least * 100 >= *most * 99);
}

TEST_CASE("packer: best fit stands where dealing overflows") {
  const std::vector<int64_t> lengths{3, 5, 4, 3, 5};
  std::vector<int64_t> batch_of;
  CHECK(pack_batches(lengths.data(), lengths.size(), 10, batch_of) == 2);
  CHECK(batch_of == std::vector<int64_t>{1, 0, 1, 1, 0});
  CHECK(pack_batches(nullptr, 0, 10, batch_of) == 0);
}
