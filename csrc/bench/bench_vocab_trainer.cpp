// Counting and merging apart, on a text file: bench_vocab_trainer FILE [THREADS [VOCAB_SIZE]].
// MB/s = bytes of the file / 10^6 / seconds, the median of 5 passes. Every pass must give the same vocabulary.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "vocab/vocab_trainer.h"
#include "vocab/word_counter.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FILE [THREADS [VOCAB_SIZE]]\n", argv[0]);
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> text((std::istreambuf_iterator<char>(file)), {});
  if (text.empty()) {
    std::fprintf(stderr, "%s: cannot be read or is empty\n", argv[1]);
    return 2;
  }
  const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
  fastbert::VocabOptions options;
  options.special_tokens = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  options.vocab_size = argc > 3 ? static_cast<size_t>(std::atoll(argv[3])) : 30522;
  options.limit_alphabet = options.vocab_size / 2;

  std::vector<double> count_s, learn_s;
  std::vector<std::string> tokens;
  for (int pass = 0; pass < 5; ++pass) {
    auto start = Clock::now();
    fastbert::WordCounter counter(fastbert::NormalizerOptions{}, threads);
    counter.add_bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size(), true);
    const size_t num_words = counter.read([](const fastbert::CountTable& counts) { return counts.size(); });
    count_s.push_back(seconds_since(start));
    start = Clock::now();
    auto vocab = counter.read(
        [&](const fastbert::CountTable& counts) { return fastbert::VocabTrainer(counts, options).learn(); });
    learn_s.push_back(seconds_since(start));
    if (pass == 0) std::printf("%zu distinct words, %zu pieces\n", num_words, vocab.tokens.size());
    if (pass > 0 && vocab.tokens != tokens) {
      std::fprintf(stderr, "pass %d gave another vocabulary\n", pass);
      return 1;
    }
    tokens = std::move(vocab.tokens);
  }
  std::printf("count %.1f MB/s (%.3f s, %d threads), learn %.3f s\n",
              static_cast<double>(text.size()) / 1e6 / median(count_s), median(count_s), threads, median(learn_s));
  return 0;
}
