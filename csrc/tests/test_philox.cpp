#include <doctest/doctest.h>

#include <vector>

#include "data/philox.h"

using namespace fastbert;

TEST_CASE("philox: the known answers of Random123, on every path") {
  struct Answer {
    uint32_t counter[4], key[2], expected[4];
  };
  const Answer answers[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Answer& a : answers) {
    for (int path = 0; path < 3; ++path) {
      if (!philox_path_supported(path)) continue;
      // 17 times the same counter: the vector body and the tail
      const std::vector<uint32_t> c0(17, a.counter[0]), c1(17, a.counter[1]), c2(17, a.counter[2]);
      std::vector<uint32_t> out(4 * 17);
      philox_blocks_on(path, a.key[0] | uint64_t{a.key[1]} << 32, c0.data(), c1.data(), c2.data(), a.counter[3], 17,
                       out.data());
      for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == a.expected[i % 4]);
    }
  }
}

TEST_CASE("philox: paths agree and write nothing past the end") {
  for (size_t count : {0u, 1u, 7u, 8u, 9u, 15u, 16u, 17u, 63u, 1000u}) {
    std::vector<uint32_t> c0(count), c1(count), c2(count), expected(4 * count);
    for (size_t i = 0; i < count; ++i) c0[i] = i * 0x9E3779B9u, c1[i] = i * i * 77u, c2[i] = ~c0[i] * 31u;
    philox_blocks_on(0, 0x0123456789abcdefull, c0.data(), c1.data(), c2.data(), 5, count, expected.data());
    for (int path = 1; path < 3; ++path) {
      if (!philox_path_supported(path)) continue;
      std::vector<uint32_t> out(4 * count + 1, 0xFEEDu);
      philox_blocks_on(path, 0x0123456789abcdefull, c0.data(), c1.data(), c2.data(), 5, count, out.data());
      CHECK(out.back() == 0xFEEDu);
      out.pop_back();
      CHECK(out == expected);
    }
  }
}

TEST_CASE("philox: item and purpose share a counter word without meeting") {
  CHECK(counter_high((uint64_t{1} << 56) - 1, Purpose::kSelect) == 0x01FFFFFFu);
  CHECK(counter_high(0, Purpose::kReplace) == 0x02000000u);
}
