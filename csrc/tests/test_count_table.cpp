#include "vocab/count_table.h"

#include <doctest/doctest.h>

#include <limits>
#include <map>
#include <random>
#include <stdexcept>
#include <string>

using fastbert::CountTable;

namespace {

const uint8_t* bytes(const std::string& text) { return reinterpret_cast<const uint8_t*>(text.data()); }

void add(CountTable& table, const std::string& key, int64_t count) { table.add(bytes(key), key.size(), count); }

std::map<std::string, int64_t> contents(const CountTable& table) {
  std::map<std::string, int64_t> result;
  table.for_each(
      [&](const CountTable::Slot& slot) { result[std::string(slot.bytes, slot.bytes + slot.size)] += slot.count; });
  return result;
}

}  // namespace

TEST_CASE("count table: holds what std::map holds, for keys of every short length") {
  std::mt19937 random(7);
  std::map<std::string, int64_t> expected;
  CountTable table;
  int64_t total = 0;
  for (int i = 0; i < 50000; ++i) {
    std::string key(1 + random() % 40, '\0');
    // few letters, NUL among them, so that keys are prefixes of each other and come again
    for (char& c : key) c = "ab\0c"[key.size() < 8 ? random() % 4 : random() % 2];
    const int64_t count = 1 + static_cast<int64_t>(random() % 1000);
    expected[key] += count;
    total += count;
    add(table, key, count);
  }
  CHECK(contents(table) == expected);
  CHECK(table.size() == expected.size());
  CHECK(table.total() == total);

  std::vector<std::string> sorted;
  for (const CountTable::Slot& slot : table.sorted()) sorted.emplace_back(slot.bytes, slot.bytes + slot.size);
  std::vector<std::string> keys;
  for (const auto& item : expected) keys.push_back(item.first);
  CHECK(sorted == keys);
}

TEST_CASE("count table: keys are copied, and may be longer than a block of the arena") {
  CountTable table;
  std::string key(3 << 20, 'x');
  add(table, key, 2);
  key.back() = 'y';
  add(table, key, 3);
  add(table, "z", 4);
  CHECK(table.size() == 3);
  CHECK(contents(table)[std::string(3 << 20, 'x')] == 2);
  CHECK_FALSE(table.add_if_known(bytes("w"), 1, CountTable::hash(bytes("w"), 1), 1));
}

TEST_CASE("count table: adding tables, itself, and clearing") {
  CountTable a, b;
  add(a, "one", 1);
  add(b, "one", 2);
  add(b, "two", 3);
  a.add_all(b);
  CHECK(contents(a) == std::map<std::string, int64_t>{{"one", 3}, {"two", 3}});
  a.add_all(a);
  CHECK(contents(a) == std::map<std::string, int64_t>{{"one", 6}, {"two", 6}});
  CHECK(a.total() == 12);
  a.clear();
  CHECK(a.size() == 0);
  CHECK(a.sorted().empty());
  add(a, "three", 1);
  CHECK(a.total() == 1);
}

TEST_CASE("count table: counts beyond 63 bits are refused and change nothing") {
  CountTable table;
  const int64_t largest = std::numeric_limits<int64_t>::max();
  add(table, "a", largest - 1);
  CHECK_THROWS_AS(add(table, "b", 2), std::overflow_error);
  CHECK_THROWS_AS(add(table, "a", 2), std::overflow_error);
  CHECK(contents(table) == std::map<std::string, int64_t>{{"a", largest - 1}});
  add(table, "b", 1);
  CHECK(table.total() == largest);
}
