#include "text/tokenizer_batch.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "system/input_error.h"
#include "system/parallel.h"

namespace fastbert {
namespace {

// A chunk of work: large enough to hide the handing out, small enough to share among threads.
constexpr size_t kChunkUnits = 64 << 10;
// Above it memory comes in large pages.
constexpr size_t kLargeUnits = 4 << 20;
constexpr size_t kKeptBytes = 16 << 20;

size_t num_added(bool has_pair) { return has_pair ? 3 : 2; }

// Where the `kept` tokens of `total` begin.
size_t kept_begin(size_t total, size_t kept, const BatchOptions& options) {
  return options.truncate_left ? total - kept : 0;
}

}  // namespace

KeptLengths kept_lengths(size_t num_first, int64_t num_second, const BatchOptions& options) {
  const bool has_pair = num_second >= 0;
  const size_t n2 = has_pair ? static_cast<size_t>(num_second) : 0;
  if (options.truncation == Truncation::kNone) return {num_first, n2};
  const size_t added = options.add_special_tokens ? num_added(has_pair) : 0;
  // the reference wraps around below zero, hence does not truncate
  if (options.max_length < added) return {num_first, n2};
  const size_t budget = options.max_length - added;
  if (budget == 0) return {0, 0};
  if (num_first + n2 <= budget) return {num_first, n2};
  const size_t to_remove = num_first + n2 - budget;
  if (options.truncation == Truncation::kLongestFirst) {
    if (!has_pair) return {budget, 0};
    const size_t shorter = std::min(num_first, n2);
    size_t small = shorter, large = shorter > budget ? shorter : std::max(shorter, budget - shorter);
    if (small + large > budget) {
      small = budget / 2;
      large = small + budget % 2;
    }
    return num_first > n2 ? KeptLengths{large, small} : KeptLengths{small, large};
  }
  if (options.truncation == Truncation::kOnlySecond && !has_pair)
    throw InputError("truncation='only_second' requires a pair, but there is one text");
  const bool first = options.truncation == Truncation::kOnlyFirst;
  const size_t target = first ? num_first : n2;
  if (target <= to_remove)
    throw InputError("the " + std::string(first ? "first" : "second") + " text has " + std::to_string(target) +
                     " tokens, too few to remove " + std::to_string(to_remove) + " for max_length=" +
                     std::to_string(options.max_length) + ". Try: truncation='longest_first' or a larger max_length");
  return first ? KeptLengths{num_first - to_remove, n2} : KeptLengths{num_first, n2 - to_remove};
}

void* IdArena::allocate(size_t num_bytes) {
  num_bytes = (num_bytes + 15) / 16 * 16;
  if (!large_) {
    small_blocks_.emplace_back(new uint8_t[num_bytes]);
    return small_blocks_.back().get();
  }
  if (num_bytes > left_) {
    left_ = std::max(num_bytes, kBlockBytes);
    blocks_.push_back(std::make_unique<PageBlock>(left_));
    next_ = static_cast<uint8_t*>(blocks_.back()->get());
  }
  uint8_t* const memory = next_;
  next_ += num_bytes;
  left_ -= num_bytes;
  return memory;
}

template <class Id>
void EncodedBatch::copy_ids(Id* out, int threads) const {
  parallel_for(chunks_.size(), threads, [&](size_t index, int) {
    const Chunk& chunk = chunks_[index];
    const auto copy = [&](const auto* ids) {
      std::transform(ids, ids + chunk.num_ids, out + chunk.token_begin, [](auto id) { return static_cast<Id>(id); });
    };
    if (narrow_) {
      copy(static_cast<const uint16_t*>(chunk.ids));
    } else {
      copy(static_cast<const int32_t*>(chunk.ids));
    }
  });
}
template void EncodedBatch::copy_ids(int32_t* out, int threads) const;
template void EncodedBatch::copy_ids(uint16_t* out, int threads) const;

void EncodedBatch::copy_offsets(int64_t* out, int threads) const {
  out[0] = 0;
  parallel_for(chunks_.size(), threads, [&](size_t index, int) {
    const Chunk& chunk = chunks_[index];
    int64_t* to = out + chunk.first;
    int64_t end = chunk.token_begin;
    for (const int64_t length : chunk.lengths) *++to = end += length;
  });
}

void EncodedBatch::copy_type_ids(const int64_t* offsets, int32_t* out) const {
  for (const Chunk& chunk : chunks_) {
    for (size_t i = chunk.first; i < chunk.last; ++i) {
      int32_t* begin = out + offsets[i];
      int32_t* end = out + offsets[i + 1];
      int32_t* second = chunk.second_begins.empty() ? end : begin + chunk.second_begins[i - chunk.first];
      std::fill(begin, second, 0);
      std::fill(second, end, 1);
    }
  }
}

void EncodedBatch::copy_char_offsets(int32_t* out) const {
  for (const Chunk& chunk : chunks_)
    std::copy(chunk.char_offsets.begin(), chunk.char_offsets.end(), out + 2 * chunk.token_begin);
}

// A fork may leave the mutex locked for ever in the child: never wait for it.
std::unique_ptr<BatchEncoder::Worker> BatchEncoder::take_worker() {
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || idle_.empty()) return std::make_unique<Worker>(*tokenizer_);
  std::unique_ptr<Worker> worker = std::move(idle_.back());
  idle_.pop_back();
  return worker;
}

void BatchEncoder::give_back(std::unique_ptr<Worker> worker) {
  // what one very long text needed is not kept
  if (worker->utf8.size() > kKeptBytes) worker->utf8 = {};
  for (IdBuffer* ids : {&worker->ids, &worker->first, &worker->second})
    if (ids->capacity() * sizeof(int32_t) > kKeptBytes) *ids = {};
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (lock.owns_lock()) idle_.push_back(std::move(worker));
}

void BatchEncoder::encode_aligned(const ByteSpan& text, bool split_special_tokens, AlignedTokens& tokens) {
  std::unique_ptr<Worker> worker = take_worker();
  tokenizer_->encode_aligned(text.data, text.size, split_special_tokens, worker->scratch, tokens);
  give_back(std::move(worker));
}

void BatchEncoder::encode_one(const TextView& text, Worker& worker, const BatchOptions& options) const {
  IdBuffer& out = worker.ids;
  const ByteSpan utf8 = to_utf8(text, worker.utf8);
  if (options.add_special_tokens) out.push_back(options.cls_id);
  const size_t begin = out.size();
  tokenizer_->encode(utf8.data, utf8.size, options.split_special_tokens, worker.scratch, out);
  const size_t total = out.size() - begin;
  const size_t kept = kept_lengths(total, -1, options).first;
  if (kept < total) {
    int32_t* ids = out.data() + begin;
    if (options.truncate_left) std::copy(ids + total - kept, ids + total, ids);
    out.resize_down(begin + kept);
  }
  if (options.add_special_tokens) out.push_back(options.sep_id);
}

void BatchEncoder::encode_pair(const TextView& text, const TextView* pair, Worker& worker, const BatchOptions& options,
                               EncodedBatch::Chunk& chunk) const {
  IdBuffer& out = worker.ids;
  const TextView* texts[2] = {&text, pair};
  AlignedTokens* tokens[2] = {&worker.first_tokens, &worker.second_tokens};
  IdBuffer* ids[2] = {&worker.first, &worker.second};
  const int num_texts = pair ? 2 : 1;
  size_t totals[2] = {0, 0};
  for (int i = 0; i < num_texts; ++i) {
    const ByteSpan utf8 = to_utf8(*texts[i], worker.utf8);
    ids[i]->clear();
    if (options.with_offsets) {
      tokenizer_->encode_aligned(utf8.data, utf8.size, options.split_special_tokens, worker.scratch, *tokens[i]);
      totals[i] = tokens[i]->ids.size();
    } else {
      tokenizer_->encode(utf8.data, utf8.size, options.split_special_tokens, worker.scratch, *ids[i]);
      totals[i] = ids[i]->size();
    }
  }
  const KeptLengths lengths = kept_lengths(totals[0], pair ? static_cast<int64_t>(totals[1]) : -1, options);
  const size_t kept[2] = {lengths.first, lengths.second};

  const auto add_special = [&](int32_t id) {
    if (!options.add_special_tokens) return;
    out.push_back(id);
    if (options.with_offsets) chunk.char_offsets.insert(chunk.char_offsets.end(), {0, 0});
  };
  const size_t begin = out.size();
  add_special(options.cls_id);
  for (int i = 0; i < num_texts; ++i) {
    if (i == 1) chunk.second_begins.push_back(static_cast<uint32_t>(out.size() - begin));
    const size_t from = kept_begin(totals[i], kept[i], options);
    const int32_t* source = options.with_offsets ? tokens[i]->ids.data() : ids[i]->data();
    for (size_t j = from; j < from + kept[i]; ++j) {
      out.push_back(source[j]);
      if (!options.with_offsets) continue;
      chunk.char_offsets.push_back(static_cast<int32_t>(tokens[i]->begins[j]));
      chunk.char_offsets.push_back(static_cast<int32_t>(tokens[i]->ends[j]));
    }
    add_special(options.sep_id);
  }
}

void BatchEncoder::encode_text(const TextView& text, const TextView* pair, Worker& worker, const BatchOptions& options,
                               EncodedBatch::Chunk& chunk) const {
  const size_t begin = worker.ids.size();
  if (pair || options.with_offsets) {
    encode_pair(text, pair, worker, options, chunk);
  } else {
    encode_one(text, worker, options);
  }
  chunk.lengths.push_back(static_cast<int64_t>(worker.ids.size() - begin));
}

// Copies ids of a chunk to where they wait.
template <class Id>
static const void* keep_ids(const IdBuffer& ids, IdArena& arena) {
  auto* kept = static_cast<Id*>(arena.allocate(ids.size() * sizeof(Id)));
  std::transform(ids.data(), ids.data() + ids.size(), kept, [](int32_t id) { return static_cast<Id>(id); });
  return kept;
}

template <class EncodeChunk>
void BatchEncoder::encode_chunks(EncodedBatch& batch, size_t size, const BatchOptions& options,
                                 EncodeChunk&& encode_chunk) {
  batch.narrow_ = tokenizer_->has_narrow_ids();
  const int threads = options.threads > 0 ? options.threads : hardware_threads();
  std::vector<std::unique_ptr<Worker>> workers(static_cast<size_t>(threads));
  batch.arenas_.resize(workers.size());
  parallel_for(batch.chunks_.size(), threads, [&](size_t index, int worker_index) {
    EncodedBatch::Chunk& chunk = batch.chunks_[index];
    std::unique_ptr<Worker>& worker = workers[static_cast<size_t>(worker_index)];
    std::unique_ptr<IdArena>& arena = batch.arenas_[static_cast<size_t>(worker_index)];
    if (!worker) {
      worker = take_worker();
      worker->scratch.expect(size / static_cast<size_t>(threads));
    }
    if (!arena) arena = std::make_unique<IdArena>(size > kLargeUnits);
    worker->ids.clear();
    encode_chunk(index, *worker, chunk);
    chunk.num_ids = worker->ids.size();
    chunk.ids = batch.narrow_ ? keep_ids<uint16_t>(worker->ids, *arena) : keep_ids<int32_t>(worker->ids, *arena);
  });
  for (auto& worker : workers)
    if (worker) give_back(std::move(worker));
  size_t num_texts = 0;
  for (EncodedBatch::Chunk& chunk : batch.chunks_) {
    chunk.first = num_texts;
    chunk.last = num_texts += chunk.lengths.size();
    chunk.token_begin = batch.num_tokens_;
    batch.num_tokens_ += static_cast<int64_t>(chunk.num_ids);
  }
}

EncodedBatch BatchEncoder::encode(const std::vector<TextView>& texts, const std::vector<TextView>& pairs,
                                  const BatchOptions& options) {
  EncodedBatch batch;
  size_t total_units = 0;
  for (size_t first = 0, i = 0, units = 0; i < texts.size(); ++i) {
    units += texts[i].length + (pairs.empty() ? 0 : pairs[i].length) + 1;
    if (units < kChunkUnits && i + 1 < texts.size()) continue;
    batch.chunks_.emplace_back();
    batch.chunks_.back().first = first;
    batch.chunks_.back().last = first = i + 1;
    total_units += units;
    units = 0;
  }
  encode_chunks(batch, total_units, options, [&](size_t, Worker& worker, EncodedBatch::Chunk& chunk) {
    chunk.lengths.reserve(chunk.last - chunk.first);
    size_t i = chunk.first;
    try {
      for (; i < chunk.last; ++i) encode_text(texts[i], pairs.empty() ? nullptr : &pairs[i], worker, options, chunk);
    } catch (const InputError& error) {
      throw InputError("text " + std::to_string(i) + ": " + error.what());
    }
  });
  return batch;
}

EncodedBatch BatchEncoder::encode_lines(const uint8_t* data, size_t size, const BatchOptions& options) {
  EncodedBatch batch;
  batch.chunks_.resize((size + kChunkUnits - 1) / kChunkUnits);
  const uint8_t* const data_end = data + size;
  encode_chunks(batch, size, options, [&](size_t index, Worker& worker, EncodedBatch::Chunk& chunk) {
    // A line belongs to the chunk it begins in. Only that one looks further than its own end, so that a long line is
    // not looked through again and again.
    const uint8_t* const begin = data + index * kChunkUnits;
    const uint8_t* const end = std::min(begin + kChunkUnits, data_end);
    const uint8_t* p = begin;
    if (index > 0 && begin[-1] != '\n') {
      const void* newline = std::memchr(begin, '\n', static_cast<size_t>(end - begin));
      p = newline ? static_cast<const uint8_t*>(newline) + 1 : end;
    }
    try {
      while (p < end) {
        const void* newline = std::memchr(p, '\n', static_cast<size_t>(data_end - p));
        const uint8_t* const line_end = newline ? static_cast<const uint8_t*>(newline) : data_end;
        encode_text({p, static_cast<size_t>(line_end - p), TextView::kUtf8}, nullptr, worker, options, chunk);
        p = line_end + 1;
      }
    } catch (const InputError& error) {
      throw InputError("text " + std::to_string(std::count(data, p, '\n')) + ": " + error.what());
    }
  });
  return batch;
}

}  // namespace fastbert
