#include "vocab/word_counter.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <thread>

using fastbert::CountTable;
using fastbert::InvalidUtf8;
using fastbert::NormalizerOptions;
using fastbert::WordCounter;

namespace {

using Counts = std::map<std::string, int64_t>;

Counts contents(WordCounter& counter) {
  Counts result;
  counter.read([&](const CountTable& table) {
    table.for_each(
        [&](const CountTable::Slot& slot) { result[std::string(slot.bytes, slot.bytes + slot.size)] = slot.count; });
  });
  return result;
}

size_t add(WordCounter& counter, const std::string& text, bool final = true) {
  return counter.add_bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size(), final);
}

// A text with everything that matters: accents, marks, ideographs, punctuation, special tokens, blanks, long words.
std::string random_text(size_t num_parts, uint32_t seed) {
  const char* const parts[] = {"a", "b",    "Ã",      "c\u0327", "中",     "文", " ",      "\n", "\t", ".",   "[",
                               "#", "word", "[MASK]", "[SEP",    "\u200b", "é",  "\u3000", "]",  " ",  "the", "ﬁ"};
  std::mt19937 random(seed);
  std::string text;
  for (size_t i = 0; i < num_parts; ++i) {
    text += parts[random() % (sizeof parts / sizeof *parts)];
    if (random() % 1000 == 0) text.append(120, 'x');
  }
  return text;
}

}  // namespace

TEST_CASE("word counter: special tokens are ordinary text, too long words are ignored") {
  const std::string text = "Foo[MASK]bár, [SEP FOO " + std::string(101, 'a') + " " + std::string(100, 'b');
  Counts expected{{"foo", 2}, {"[", 2}, {"mask", 1}, {"]", 1}, {"bar", 1}, {",", 1}, {"sep", 1}};
  expected[std::string(100, 'b')] = 1;
  WordCounter counter(NormalizerOptions{}, 1);
  add(counter, text);
  CHECK(contents(counter) == expected);
  WordCounter::Limits limits;
  limits.max_word_chars = 101;
  expected[std::string(101, 'a')] = 1;
  WordCounter longer(NormalizerOptions{}, 1, limits);
  add(longer, text);
  CHECK(contents(longer) == expected);
}

TEST_CASE("word counter: any split into texts, blocks and threads gives the same") {
  // long enough for many chunks; split at blanks only, as lines are
  const std::string text = random_text(400000, 1);
  WordCounter one(NormalizerOptions{}, 1);
  add(one, text);
  const Counts expected = contents(one);
  CHECK(expected.size() > 1000);
  for (const int threads : {1, 2, 5}) {
    WordCounter by_line(NormalizerOptions{}, threads), by_block(NormalizerOptions{}, threads);
    std::vector<std::string_view> lines;
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      lines.push_back(std::string_view(text).substr(begin, end - begin));
      begin = end + 1;
    }
    by_line.add_texts(lines);
    CHECK(contents(by_line) == expected);

    const size_t block_bytes = 100000 + static_cast<size_t>(threads);
    std::string pending;
    for (size_t begin = 0; begin < text.size(); begin += block_bytes) {
      pending += text.substr(begin, block_bytes);
      pending.erase(0, add(by_block, pending, false));
    }
    CHECK(add(by_block, pending) == pending.size());
    CHECK(contents(by_block) == expected);
  }
}

TEST_CASE("word counter: small chunks and tables that are emptied all the time change nothing") {
  const std::string text = random_text(30000, 9);
  WordCounter expected(NormalizerOptions{}, 1);
  add(expected, text);
  for (const size_t chunk_bytes : {1, 7, 100}) {
    WordCounter::Limits limits;
    limits.chunk_bytes = chunk_bytes;
    limits.max_segment_bytes = chunk_bytes % 8;
    limits.max_segments = 3;
    limits.max_thread_words = 20;
    WordCounter counter(NormalizerOptions{}, 3, limits);
    for (int half = 0; half < 2; ++half)
      add(counter, half ? text.substr(text.find(' ')) : text.substr(0, text.find(' ')));
    CHECK(contents(counter) == contents(expected));
  }
}

TEST_CASE("word counter: a run without a blank is cut at the same places however it comes") {
  std::string text;
  while (text.size() < 3 * WordCounter::kLongestRun) text += "x,é,";
  WordCounter whole(NormalizerOptions{}, 2), streamed(NormalizerOptions{}, 1);
  add(whole, text);
  std::string pending;
  for (size_t begin = 0; begin < text.size(); begin += 300001) {
    pending += text.substr(begin, 300001);
    pending.erase(0, add(streamed, pending, false));
    CHECK(pending.size() <= WordCounter::kLongestRun);
  }
  add(streamed, pending);
  CHECK(contents(whole) == contents(streamed));
}

TEST_CASE("word counter: the first ill-formed byte is reported for any number of threads") {
  const std::string good = random_text(300000, 3);
  for (const char* bad : {"\xff", "\x80", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80"}) {
    for (const int threads : {1, 4}) {
      WordCounter counter(NormalizerOptions{}, threads);
      const std::string text = good + "ab" + bad + " " + good + bad;
      size_t offset = 0;
      try {
        add(counter, text);
      } catch (const InvalidUtf8& error) {
        offset = error.offset;
      }
      CHECK(offset == good.size() + 2);
    }
  }
  WordCounter counter(NormalizerOptions{}, 1);
  CHECK_NOTHROW(add(counter, "\xEF\xBF\xBD"));
}

TEST_CASE("word counter: may be filled from several threads at once") {
  const std::string text = random_text(20000, 5);
  WordCounter expected(NormalizerOptions{}, 1), shared(NormalizerOptions{}, 2);
  for (int i = 0; i < 8; ++i) add(expected, text);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      add(shared, text);
      contents(shared);
      add(shared, text);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(contents(shared) == contents(expected));
}
