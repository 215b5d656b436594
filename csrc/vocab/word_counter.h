// How often each normalised word occurs in a text of any size. The rules are in fastbert/text/word_counts.py.
//
// ASCII blanks and punctuation are boundaries that normalisation never crosses, so the raw segments between them are
// counted first, and each distinct one is normalised once. Every thread has its own tables; when they are big, and
// before anybody reads the counts, they are added up. Memory grows with the number of distinct words only.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vocab/count_table.h"
#include "text/normalizer.h"

namespace fastbert {

// Text that is not UTF-8: the offset of its first ill-formed byte. The text before it may have been counted.
struct InvalidUtf8 : std::runtime_error {
  explicit InvalidUtf8(size_t offset) : std::runtime_error("invalid UTF-8"), offset(offset) {}
  size_t offset;
};

// All public methods may be called from several threads.
class WordCounter {
 public:
  static constexpr size_t kLongestRun = 1 << 20;

  // Only the first two change the counts; the others bound the memory and are small in tests.
  struct Limits {
    size_t longest_run = kLongestRun;  // bytes, at least 4
    size_t max_word_chars = 100;       // longer words are not counted
    size_t chunk_bytes = 128 << 10;    // of one piece of work for a thread, at most longest_run
    size_t max_segment_bytes = 64;     // longer segments are seldom seen twice
    size_t max_segments = 1 << 19;     // in the table of a thread: some 50 MB
    size_t max_thread_words = 1 << 19;
  };

  // threads <= 0 means hardware_threads().
  WordCounter(const NormalizerOptions& options, int threads, const Limits& limits);
  WordCounter(const NormalizerOptions& options, int threads) : WordCounter(options, threads, Limits{}) {}

  void add_texts(const std::vector<std::string_view>& texts);
  // Counts the complete runs at the front of a text (all of it when `final`) and returns how many bytes it has used:
  // the rest, at most a longest run, is to come again with what follows.
  size_t add_bytes(const uint8_t* data, size_t size, bool final);
  void add_word(std::string_view word, int64_t count);

  // Calls body(const CountTable&) with the counts as they are now. body must not call back into this counter.
  template <class Body>
  auto read(Body&& body) {
    std::lock_guard<std::mutex> lock(mutex_);
    collect();
    return body(static_cast<const CountTable&>(words_));
  }

 private:
  struct Worker {
    std::vector<Normalizer> normalizer;  // none until it is needed
    CountTable segments, words;
  };
  // A part of a text, cut where no word can go on.
  struct Chunk {
    const uint8_t *begin, *end;
    size_t offset;
  };

  size_t split(const uint8_t* text, size_t size, bool final, std::vector<Chunk>& chunks) const;
  const uint8_t* chunk_end(const uint8_t* begin, const uint8_t* end, bool final) const;
  void count(const std::vector<Chunk>& chunks);
  void count_chunk(Worker& worker, const Chunk& chunk) const;
  // A short segment whose place in the table is on its way: the table is larger than the near caches.
  struct Waiting {
    const uint8_t* begin;
    uint32_t size, hash;
  };
  void add_waiting(Worker& worker, const Waiting* waiting, size_t count, const Chunk& chunk) const;
  void check_utf8(const uint8_t* begin, size_t size, const Chunk& chunk) const;
  void normalise(Worker& worker, const uint8_t* segment, size_t size, int64_t count) const;
  void normalise_segments(Worker& worker) const;
  void collect();

  std::mutex mutex_;
  NormalizerOptions options_;
  Limits limits_;
  std::array<uint8_t, 256> classes_{};
  std::vector<Worker> workers_;
  CountTable words_;
};

}  // namespace fastbert
