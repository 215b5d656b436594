// Bytes to ids: every instruction set, cold or warm, in any chunks and threads, gives what plain normalising and
// splitting give.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "text/tokenizer_batch.h"

namespace {

using namespace fastbert;

std::vector<std::string> vocabulary() {
  std::vector<std::string> vocab{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  for (char c = '!'; c <= '~'; ++c) {
    vocab.push_back(std::string(1, c));
    if (c != 'q') vocab.push_back("##" + std::string(1, c));
  }
  for (const char* text :
       {"the", "##ing", "##ed", "an", "\u00e9", "##\u00e9", "\u6f22", "\u1100", "##\u1161", "\u0301"})
    vocab.emplace_back(text);
  return vocab;
}

std::vector<std::unique_ptr<BatchEncoder>> make_encoders(unsigned flags) {
  std::vector<std::unique_ptr<BatchEncoder>> result;
  TokenizerOptions options;
  options.normalizer = {(flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0, (flags & 8) != 0};
  options.max_input_chars_per_word = flags & 16 ? 100 : 5;
  for (const SimdLevel level : available_simd_levels()) {
    options.simd = level;
    result.push_back(std::make_unique<BatchEncoder>(std::make_shared<const Tokenizer>(
        vocabulary(), 1, std::vector<SpecialToken>{{"[CLS]", 2}, {"[SEP]", 3}, {"[MASK]", 4}}, options)));
  }
  return result;
}

struct Output {
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets;
  bool operator==(const Output& other) const { return ids == other.ids && offsets == other.offsets; }
};

Output output_of(const EncodedBatch& batch, int threads) {
  Output output;
  output.offsets.resize(batch.num_texts() + 1);
  batch.copy_offsets(output.offsets.data(), threads);
  output.ids.resize(batch.num_tokens());
  batch.copy_ids(output.ids.data(), threads);
  return output;
}

Output encode(BatchEncoder& encoder, const std::vector<TextView>& texts, const BatchOptions& options) {
  return output_of(encoder.encode(texts, {}, options), options.threads);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static std::vector<std::unique_ptr<BatchEncoder>> all_encoders[32];
  if (size < 2) return 0;
  const unsigned flags = data[0] % 32;
  auto& encoders = all_encoders[flags];
  if (encoders.empty()) encoders = make_encoders(flags);
  BatchOptions options;
  options.cls_id = 2;
  options.sep_id = 3;
  options.split_special_tokens = (data[1] & 1) != 0;
  options.truncate_left = (data[1] & 2) != 0;
  options.truncation = data[1] & 4 ? Truncation::kLongestFirst : Truncation::kNone;
  options.max_length = data[1] >> 3;

  // exactly as long as the text: the sanitizer sees every byte read outside of it
  const std::vector<uint8_t> text(data + 2, data + size);
  const std::vector<TextView> lines = split_lines(text.data(), text.size());
  options.with_offsets = true;  // has no cache and no SIMD
  options.threads = 1;
  const Output expected = encode(*encoders[0], lines, options);
  options.with_offsets = false;
  for (auto& encoder : encoders)
    if (!(encode(*encoder, lines, options) == expected)) std::abort();
  // waking threads costs more than all the rest: one input in eight
  options.threads = data[0] / 32 == 0 ? 2 : 1;
  const EncodedBatch from_bytes = encoders.back()->encode_lines(text.data(), text.size(), options);
  if (!(output_of(from_bytes, options.threads) == expected)) std::abort();
  // each line alone
  for (size_t i = 0; i < lines.size() && i < 8; ++i) {
    const Output one = encode(*encoders.back(), {lines[i]}, options);
    const std::vector<int32_t> part(expected.ids.begin() + expected.offsets[i],
                                    expected.ids.begin() + expected.offsets[i + 1]);
    if (one.ids != part) std::abort();
  }
  return 0;
}
