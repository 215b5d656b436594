#include "vocab/code_point_map.h"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

TEST_CASE("code point map: unset everywhere, written where written, visited in order") {
  fastbert::CodePointMap<int> map(-1);
  CHECK(map.get(0) == -1);
  CHECK(map.get(0x10FFFF) == -1);
  map[0x10FFFF] = 7;
  map[0x41] = 1;
  map[0x42] += 3;  // from -1
  std::vector<std::pair<uint32_t, int>> seen;
  map.for_each([&](uint32_t code_point, int value) {
    if (value != -1) seen.emplace_back(code_point, value);
  });
  CHECK(seen == std::vector<std::pair<uint32_t, int>>{{0x41, 1}, {0x42, 2}, {0x10FFFF, 7}});
}
