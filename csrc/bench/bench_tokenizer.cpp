// Encoding a text line by line: MB per CPU second of a first pass (empty caches) and of a second one.
//   bench_tokenizer VOCAB_FILE TEXT_FILE [cased] [ROUNDS]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "text/tokenizer_batch.h"

using namespace fastbert;

static std::string read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "%s: cannot be read\n", path);
    std::exit(2);
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

static double cpu_s() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: bench_tokenizer VOCAB_FILE TEXT_FILE [cased] [ROUNDS]\n");
    return 2;
  }
  const bool cased = argc > 3 && !std::strcmp(argv[3], "cased");
  const int rounds = argc > 3 + cased ? std::atoi(argv[3 + cased]) : 20;
  const std::string vocab_text = read(argv[1]), text = read(argv[2]);
  std::vector<std::string> vocab;
  for (const TextView& line : split_lines(reinterpret_cast<const uint8_t*>(vocab_text.data()), vocab_text.size()))
    vocab.emplace_back(static_cast<const char*>(line.data), line.length);
  const auto id_of = [&](const char* entry) {
    return static_cast<int32_t>(std::find(vocab.begin(), vocab.end(), entry) - vocab.begin());
  };
  TokenizerOptions options;
  options.normalizer = {!cased, !cased, true, true};
  const auto tokenizer = std::make_shared<const Tokenizer>(
      vocab, id_of("[UNK]"),
      std::vector<SpecialToken>{{"[CLS]", id_of("[CLS]")}, {"[SEP]", id_of("[SEP]")}, {"[MASK]", id_of("[MASK]")}},
      options);
  BatchOptions batch_options;
  batch_options.cls_id = id_of("[CLS]");
  batch_options.sep_id = id_of("[SEP]");
  batch_options.threads = 1;
  std::vector<double> speeds[2];
  size_t num_tokens = 0;
  for (int round = 0; round < rounds; ++round) {
    BatchEncoder encoder(tokenizer);
    for (auto& speed : speeds) {
      const double begin = cpu_s();
      const EncodedBatch batch =
          encoder.encode_lines(reinterpret_cast<const uint8_t*>(text.data()), text.size(), batch_options);
      std::vector<int64_t> offsets(batch.num_texts() + 1);
      batch.copy_offsets(offsets.data(), 1);
      std::vector<int32_t> ids(num_tokens = batch.num_tokens());
      batch.copy_ids(ids.data(), 1);
      speed.push_back(static_cast<double>(text.size()) / 1e6 / (cpu_s() - begin));
    }
  }
  for (auto& speed : speeds) std::sort(speed.begin(), speed.end());
  std::printf("%zu tokens; MB per CPU second, median and best: first pass %.0f %.0f, again %.0f %.0f\n", num_tokens,
              speeds[0][speeds[0].size() / 2], speeds[0].back(), speeds[1][speeds[1].size() / 2], speeds[1].back());
}
