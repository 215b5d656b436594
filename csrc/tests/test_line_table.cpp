#include "data/line_table.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using fastbert::LineTable;

namespace {

const uint8_t* bytes(const std::string& text) { return reinterpret_cast<const uint8_t*>(text.data()); }

std::vector<uint64_t> add_text(LineTable& table, const std::string& text) {
  std::vector<uint64_t> ended;
  table.add_text(bytes(text), text.size(), ended);
  return ended;
}

}  // namespace

TEST_CASE("line table: the checksum is that of zlib") {
  const std::string text = "123456789";
  CHECK(fastbert::crc32(bytes(text), text.size()) == 0xCBF43926u);
  CHECK(fastbert::crc32(bytes(text), 0) == 0);
  const std::string longer = text + text + text;
  const uint32_t half = fastbert::crc32(bytes(longer), 13);
  CHECK(fastbert::crc32(bytes(longer) + 13, longer.size() - 13, half) == fastbert::crc32(bytes(longer), longer.size()));
}

TEST_CASE("line table: blank lines end documents, the rest of a cut line does not") {
  LineTable table(100, 1000, 0.8);
  CHECK(add_text(table, "a b\nc\n\nd\n \t\n").size() == 1);
  CHECK(add_text(table, "e").size() == 1);  // cut
  CHECK(add_text(table, "\nf\n\n").empty());
  CHECK(table.end() == 4);  // e and f, with their line feeds
  CHECK(table.totals().documents == 3);
  CHECK(table.totals().lines == 5);
}

TEST_CASE("line table: repeated lines, documents and near-duplicates") {
  LineTable table(100, 1000, 0.8);
  for (const char* text : {"one\ntwo\nthree\nfour", "one\ntwo\nthree\nfour", "one\ntwo\nthree\nfour\nfive", "ONE."})
    table.add(bytes(text), std::string(text).size(), false);
  table.end();
  const LineTable::Totals found = table.totals();
  CHECK(found.exact_documents == 1);
  CHECK(found.near_documents == 1);
  CHECK(found.distinct_lines == 6);
  CHECK(found.near_lines == 1);
  CHECK(found.sampled_lines == 14);
  CHECK(found.shared_bytes == 3 * 15);
}

TEST_CASE("line table: a sample is kept when there are too many lines") {
  LineTable table(64, 10, 0.8);
  for (int i = 0; i < 5000; ++i) {
    const std::string line = "line " + std::to_string(i % 2500);
    table.add(bytes(line), line.size(), false);
  }
  table.end();
  const LineTable::Totals found = table.totals();
  CHECK(found.estimated);
  CHECK(found.distinct_lines <= 64);
  CHECK(found.sampled_lines >= found.distinct_lines);
  CHECK(found.lines == 5000);
  const std::string word(11, 'x');
  table.add(bytes(word), word.size(), false);
  CHECK(table.totals().long_words == 1);
}
