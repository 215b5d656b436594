#include "vocab/word_counter.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "system/parallel.h"
#include "text/utf8.h"

namespace fastbert {
namespace {

constexpr size_t kQueueSize = 32;

enum ByteClass : uint8_t { kInWord = 0, kBlank = 1, kPunctuation = 2 };

bool is_blank(uint8_t byte) { return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r'; }

bool is_punctuation(int byte) {
  return (byte >= '!' && byte <= '/') || (byte >= ':' && byte <= '@') || (byte >= '[' && byte <= '`') ||
         (byte >= '{' && byte <= '~');
}

// The last start of a character at or before p (3 bytes before it at the most).
const uint8_t* cut(const uint8_t* p) {
  for (int i = 0; i < 3 && is_utf8_continuation(*p); ++i) --p;
  return p;
}

// The first byte that is not part of well-formed UTF-8, or `end`.
const uint8_t* find_ill_formed(const uint8_t* begin, const uint8_t* end) {
  for (const uint8_t* p = begin; p < end;) {
    const uint8_t* const start = p;
    if (decode_utf8(p, end) != kReplacement) continue;
    const bool is_itself = p - start == 3 && start[0] == 0xEF && start[1] == 0xBF && start[2] == 0xBD;
    if (!is_itself) return start;
  }
  return end;
}

}  // namespace

WordCounter::WordCounter(const NormalizerOptions& options, int threads, const Limits& limits)
    : options_(options), limits_(limits) {
  constexpr int kMaxThreads = 1024;
  workers_.resize(static_cast<size_t>(std::min(threads > 0 ? threads : hardware_threads(), kMaxThreads)));
  for (int byte = 0; byte < 128; ++byte) {
    if (is_blank(static_cast<uint8_t>(byte))) classes_[static_cast<size_t>(byte)] = kBlank;
    if (options.split_punctuation && is_punctuation(byte)) classes_[static_cast<size_t>(byte)] = kPunctuation;
  }
}

void WordCounter::add_texts(const std::vector<std::string_view>& texts) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Chunk> chunks;
  chunks.reserve(texts.size());
  for (const std::string_view text : texts)
    split(reinterpret_cast<const uint8_t*>(text.data()), text.size(), true, chunks);
  count(chunks);
}

size_t WordCounter::add_bytes(const uint8_t* data, size_t size, bool final) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Chunk> chunks;
  const size_t used = split(data, size, final, chunks);
  count(chunks);
  return used;
}

void WordCounter::add_word(std::string_view word, int64_t count) {
  std::lock_guard<std::mutex> lock(mutex_);
  collect();
  words_.add(reinterpret_cast<const uint8_t*>(word.data()), word.size(), count);
}

// The end of a chunk that begins a run, or `begin` when the text ends before one is certain.
const uint8_t* WordCounter::chunk_end(const uint8_t* begin, const uint8_t* end, bool final) const {
  const auto size = static_cast<size_t>(end - begin);
  if (final && size <= limits_.chunk_bytes) return end;
  const uint8_t* p = begin + std::min(limits_.chunk_bytes, size);
  const uint8_t* run = p;
  while (run > begin && !is_blank(run[-1])) --run;
  const uint8_t* const limit = run + std::min(limits_.longest_run, static_cast<size_t>(end - run));
  while (p < limit && !is_blank(*p)) ++p;
  if (p == end) return final ? end : run;
  return is_blank(*p) ? p + 1 : cut(p);
}

size_t WordCounter::split(const uint8_t* text, size_t size, bool final, std::vector<Chunk>& chunks) const {
  const uint8_t* begin = text;
  const uint8_t* const end = text + size;
  while (begin < end) {
    const uint8_t* const next = chunk_end(begin, end, final);
    if (next == begin) break;
    chunks.push_back({begin, next, static_cast<size_t>(begin - text)});
    begin = next;
  }
  return static_cast<size_t>(begin - text);
}

void WordCounter::count(const std::vector<Chunk>& chunks) {
  // short texts go together, so that every task is worth a thread's while
  std::vector<size_t> starts;
  size_t num_bytes = limits_.chunk_bytes;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (num_bytes >= limits_.chunk_bytes) {
      starts.push_back(i);
      num_bytes = 0;
    }
    num_bytes += static_cast<size_t>(chunks[i].end - chunks[i].begin);
  }
  starts.push_back(chunks.size());

  // the first fault of the text is reported, whichever thread comes upon one first
  constexpr size_t kNone = std::numeric_limits<size_t>::max();
  std::atomic<size_t> ill_formed{kNone};
  parallel_for(starts.size() - 1, static_cast<int>(workers_.size()), [&](size_t task, int index) {
    Worker& worker = workers_[static_cast<size_t>(index)];
    try {
      for (size_t i = starts[task]; i < starts[task + 1]; ++i) count_chunk(worker, chunks[i]);
    } catch (const InvalidUtf8& error) {
      size_t first = ill_formed;
      while (error.offset < first && !ill_formed.compare_exchange_weak(first, error.offset)) {
      }
    }
    if (worker.segments.size() >= limits_.max_segments) normalise_segments(worker);
  });
  if (ill_formed != kNone) throw InvalidUtf8(ill_formed);
  for (const Worker& worker : workers_) {
    if (worker.words.size() < limits_.max_thread_words) continue;
    collect();
    break;
  }
}

void WordCounter::count_chunk(Worker& worker, const Chunk& chunk) const {
  Waiting queue[kQueueSize];
  size_t waiting = 0;
  const auto flush = [&] {
    add_waiting(worker, queue, waiting, chunk);
    waiting = 0;
  };
  const auto add = [&](const uint8_t* begin, const uint8_t* end) {
    const auto size = static_cast<size_t>(end - begin);
    if (size == 0) return;
    if (size > limits_.max_segment_bytes) {
      flush();  // faults are found in the order of the text
      check_utf8(begin, size, chunk);
      normalise(worker, begin, size, 1);
      return;
    }
    const uint32_t hash = CountTable::hash(begin, size);
    worker.segments.prefetch(hash);
    queue[waiting++] = {begin, static_cast<uint32_t>(size), hash};
    if (waiting == kQueueSize) flush();
  };
  const uint8_t* segment = chunk.begin;
  const uint8_t* p = chunk.begin;
  for (;;) {
    while (p < chunk.end && classes_[*p] == kInWord) ++p;
    if (p == chunk.end) break;
    add(segment, p);
    if (classes_[*p] == kPunctuation) add(p, p + 1);
    segment = ++p;
  }
  add(segment, p);
  flush();
}

void WordCounter::add_waiting(Worker& worker, const Waiting* waiting, size_t count, const Chunk& chunk) const {
  for (size_t i = 0; i < count; ++i) worker.segments.prefetch_key(waiting[i].hash);
  for (size_t i = 0; i < count; ++i) {
    const Waiting& segment = waiting[i];
    if (worker.segments.add_if_known(segment.begin, segment.size, segment.hash, 1)) continue;
    check_utf8(segment.begin, segment.size, chunk);
    worker.segments.add(segment.begin, segment.size, segment.hash, 1);
  }
}

void WordCounter::check_utf8(const uint8_t* begin, size_t size, const Chunk& chunk) const {
  const uint8_t* const ill_formed = find_ill_formed(begin, begin + size);
  if (ill_formed != begin + size) throw InvalidUtf8(chunk.offset + static_cast<size_t>(ill_formed - chunk.begin));
}

void WordCounter::normalise(Worker& worker, const uint8_t* segment, size_t size, int64_t count) const {
  if (worker.normalizer.empty()) worker.normalizer.emplace_back(options_);
  worker.normalizer[0].words(
      segment, size,
      [&](const uint8_t* word, size_t num_bytes, size_t num_chars) {
        if (num_chars <= limits_.max_word_chars) worker.words.add(word, num_bytes, count);
      },
      limits_.max_word_chars);
}

void WordCounter::normalise_segments(Worker& worker) const {
  worker.segments.for_each([&](const CountTable::Slot& slot) { normalise(worker, slot.bytes, slot.size, slot.count); });
  worker.segments.clear();
}

void WordCounter::collect() {
  std::vector<Worker*> busy;
  for (Worker& worker : workers_)
    if (worker.segments.size() || worker.words.size()) busy.push_back(&worker);
  parallel_for(busy.size(), static_cast<int>(workers_.size()),
               [&](size_t index, int) { normalise_segments(*busy[index]); });
  for (Worker* worker : busy) {
    if (words_.size() == 0) {
      words_ = std::move(worker->words);
    } else {
      words_.add_all(worker->words);
    }
    worker->words.clear();
  }
}

}  // namespace fastbert
