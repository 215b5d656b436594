#include "text/tokenizer.h"

#include <doctest/doctest.h>

#include <random>
#include <string>

#include "text/tokenizer_batch.h"
#include "text/utf8.h"

using namespace fastbert;

namespace {

const std::vector<std::string> kVocab = {"[PAD]",  "[UNK]", "[CLS]",  "[SEP]",    "[MASK]", "a",   "b",
                                         "##a",    "##b",   "ab",     ".",        ",",      "[",   "]",
                                         "\u00e9", "e",     "\u6f22", "##\u00e9", "m",      "##m", "aaa"};

Tokenizer make(SimdLevel level, bool lowercase = true, const std::vector<std::string>& vocab = kVocab) {
  TokenizerOptions options;
  options.normalizer.lowercase = options.normalizer.strip_accents = lowercase;
  options.simd = level;
  return Tokenizer(vocab, 1, {{"[CLS]", 2}, {"[SEP]", 3}, {"[MASK]", 4}}, options);
}

const uint8_t* bytes(const std::string& text) { return reinterpret_cast<const uint8_t*>(text.data()); }

std::vector<int32_t> encode(const Tokenizer& tokenizer, Tokenizer::Scratch& scratch, const std::string& text) {
  // its own allocation, exactly as long: a sanitizer sees every byte read outside of it
  const std::vector<uint8_t> exact(text.begin(), text.end());
  IdBuffer ids;
  tokenizer.encode(exact.data(), exact.size(), false, scratch, ids);
  return {ids.data(), ids.data() + ids.size()};
}

std::string random_text(std::mt19937& random) {
  static const std::string kPieces[] = {"a",
                                        "b",
                                        "A",
                                        "Ab",
                                        "aaaaaaaaaaaaaa",
                                        "aaaaaaaaaaaaaaa",
                                        "aaaaaaaaaaaaaaaa",
                                        " ",
                                        ".",
                                        ",",
                                        "[MASK]",
                                        "[",
                                        "\u00e9",
                                        "\u00c9",
                                        "\u6f22",
                                        "\xff",
                                        "\xe6\xbc",
                                        "\u0301",
                                        std::string(1, '\0'),
                                        "\t\n",
                                        "\u200b",
                                        "zz",
                                        std::string(40, 'b')};
  std::string text;
  for (size_t n = random() % 40; n; --n) text += kPieces[random() % std::size(kPieces)];
  return text;
}

}  // namespace

TEST_CASE("tokenizer: special tokens, words, pieces") {
  const Tokenizer tokenizer = make(SimdLevel::kScalar);
  Tokenizer::Scratch scratch(tokenizer);
  CHECK(encode(tokenizer, scratch, "Ab, a[MASK]\u00c9 \u6f22zz") == std::vector<int32_t>{9, 11, 5, 4, 15, 16, 1});
  CHECK(encode(tokenizer, scratch, "").empty());
}

TEST_CASE("tokenizer: every instruction set, cold and warm, equals the aligned encoding, which has no cache") {
  std::mt19937 random(3);
  std::vector<std::string> wide = kVocab;  // ids of 32 bits
  wide.resize(70000, "filler");
  for (const bool lowercase : {true, false}) {
    for (const std::vector<std::string>* vocab : {&kVocab, static_cast<const std::vector<std::string>*>(&wide)}) {
      for (const SimdLevel level : available_simd_levels()) {
        const Tokenizer tokenizer = make(level, lowercase, *vocab);
        Tokenizer::Scratch scratch(tokenizer);
        AlignedTokens aligned;
        for (int i = 0; i < 1500; ++i) {
          const std::string text = random_text(random);
          tokenizer.encode_aligned(bytes(text), text.size(), false, scratch, aligned);
          REQUIRE(encode(tokenizer, scratch, text) == aligned.ids);
          REQUIRE(encode(tokenizer, scratch, text) == aligned.ids);
        }
      }
    }
  }
}

TEST_CASE("tokenizer batch: chunks and threads do not show") {
  std::mt19937 random(4);
  std::vector<std::string> texts(4000);
  for (auto& text : texts) text = random_text(random) + std::string(400, 'a') + random_text(random);
  std::vector<TextView> views;
  for (const auto& text : texts) views.push_back({text.data(), text.size(), TextView::kUtf8});
  BatchEncoder encoder(std::make_shared<const Tokenizer>(make(best_simd_level())));
  BatchOptions options;
  options.cls_id = 2;
  options.sep_id = 3;
  options.truncation = Truncation::kLongestFirst;
  options.max_length = 20;
  std::vector<int32_t> first;
  for (int threads : {1, 2, 5}) {
    options.threads = threads;
    std::vector<int64_t> offsets(texts.size() + 1);
    const EncodedBatch batch = encoder.encode(views, {}, options);
    batch.copy_offsets(offsets.data(), threads);
    std::vector<int32_t> ids(batch.num_tokens());
    batch.copy_ids(ids.data(), threads);
    CHECK(offsets.back() == static_cast<int64_t>(ids.size()));
    if (threads == 1) first = ids;
    CHECK(ids == first);
  }
}

TEST_CASE("tokenizer batch: lines are found wherever chunks begin") {
  std::mt19937 random(5);
  BatchEncoder encoder(std::make_shared<const Tokenizer>(make(best_simd_level())));
  BatchOptions options;
  options.cls_id = 2;
  options.sep_id = 3;
  std::string newlines_only(200000, '\n'), one_line(300000, 'a'), exact(65535, ' ');
  std::string mixed;
  while (mixed.size() < 1000000) {
    const int kind = static_cast<int>(random() % 8);
    mixed += kind == 0 ? std::string(random() % 150000, ' ') : kind == 1 ? std::string(random() % 9, '\n') : "ab, a";
    if (random() % 3 == 0) mixed += '\n';
  }
  exact += "\na\n" + std::string(65533, ' ') + "\nab";  // newlines around the first and second boundary
  for (const std::string& text : {std::string(), std::string("\n"), newlines_only, one_line, exact, mixed}) {
    const std::vector<TextView> lines = split_lines(bytes(text), text.size());
    options.threads = 1;
    const EncodedBatch expected = encoder.encode(lines, {}, options);
    std::vector<int64_t> offsets(lines.size() + 1);
    expected.copy_offsets(offsets.data(), 1);
    std::vector<int32_t> ids(expected.num_tokens());
    expected.copy_ids(ids.data(), 1);
    for (options.threads = 1; options.threads <= 3; ++options.threads) {
      const EncodedBatch got = encoder.encode_lines(bytes(text), text.size(), options);
      REQUIRE(got.num_texts() == lines.size());
      std::vector<int64_t> got_offsets(lines.size() + 1);
      got.copy_offsets(got_offsets.data(), options.threads);
      std::vector<int32_t> got_ids(got.num_tokens());
      got.copy_ids(got_ids.data(), options.threads);
      CHECK((got_offsets == offsets && got_ids == ids));
    }
  }
}

TEST_CASE("tokenizer text: wide strings become UTF-8, lone surrogates are refused") {
  std::vector<uint8_t> scratch;
  std::u16string text;
  std::string expected;
  for (int i = 0; i < 100; ++i) {
    text += i % 23 ? char16_t('a' + i % 20) : char16_t(0x6F22);
    expected += i % 23 ? std::string(1, static_cast<char>('a' + i % 20)) : "\u6f22";
    const ByteSpan span = to_utf8({text.data(), text.size(), TextView::kUcs2}, scratch);
    REQUIRE(std::string(span.data, span.data + span.size) == expected);
  }
  text[50] = 0xD800;
  CHECK_THROWS(to_utf8({text.data(), text.size(), TextView::kUcs2}, scratch));
}

template <class Unit>
static void check_random_texts(TextView::Kind kind, const std::vector<uint32_t>& beyond_ascii) {
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::vector<Unit> text(random() % 70);  // its own allocation, for sanitizers
    std::string expected;
    const unsigned one_in = 1 + random() % 20;
    for (Unit& unit : text) {
      unit = static_cast<Unit>(random() % one_in ? random() % 0x80 : beyond_ascii[random() % beyond_ascii.size()]);
      uint8_t utf8[4];
      const int length = encode_utf8(static_cast<uint32_t>(unit), utf8);
      expected.append(utf8, utf8 + length);
    }
    std::vector<uint8_t> scratch;
    const ByteSpan span = to_utf8({text.data(), text.size(), kind}, scratch);
    REQUIRE(std::string(span.data, span.data + span.size) == expected);
  }
}

TEST_CASE("tokenizer text: every width, wherever it stops being ASCII") {
  check_random_texts<uint8_t>(TextView::kLatin1, {0x80, 0xE7, 0xFF});
  check_random_texts<uint16_t>(TextView::kUcs2, {0x80, 0xE7, 0x24F, 0x250, 0x7FF, 0x800, 0x201C, 0xFFFF});
  check_random_texts<uint32_t>(TextView::kUcs4, {0xE3, 0x250, 0x800, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF});
}

TEST_CASE("tokenizer text: lines") {
  const auto sizes = [](const std::string& text) {
    std::vector<size_t> result;
    for (const TextView& line : split_lines(bytes(text), text.size())) result.push_back(line.length);
    return result;
  };
  CHECK(sizes("") == std::vector<size_t>{});
  CHECK(sizes("a") == std::vector<size_t>{1});
  CHECK(sizes("a\n\nbc\n") == std::vector<size_t>{1, 0, 2});
}
