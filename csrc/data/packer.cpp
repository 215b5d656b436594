#include "data/packer.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

namespace fastbert {
namespace {

// The smallest member >= x of a set of numbers below a limit: a bit for each, a bit for each word of bits, and so on.
class BitSet {
 public:
  explicit BitSet(size_t limit) {
    do {
      limit = (limit + 63) / 64;
      levels_.emplace_back(limit, 0);
    } while (limit > 1);
  }

  void insert(size_t x) {
    for (auto& level : levels_) {
      level[x / 64] |= uint64_t{1} << (x % 64);
      x /= 64;
    }
  }

  void erase(size_t x) {
    for (auto& level : levels_) {
      level[x / 64] &= ~(uint64_t{1} << (x % 64));
      if (level[x / 64]) return;
      x /= 64;
    }
  }

  // -1 when there is none.
  int64_t at_least(size_t x) const {
    size_t depth = 0;
    for (; depth < levels_.size(); ++depth, x = x / 64 + 1) {
      if (x / 64 >= levels_[depth].size()) return -1;
      const uint64_t rest = levels_[depth][x / 64] >> (x % 64);
      if (rest) {
        x += lowest(rest);
        break;
      }
    }
    if (depth == levels_.size()) return -1;
    while (depth-- > 0) x = x * 64 + lowest(levels_[depth][x]);
    return static_cast<int64_t>(x);
  }

 private:
  static size_t lowest(uint64_t bits) {
#if defined(__GNUC__) || defined(__clang__)
    return static_cast<size_t>(__builtin_ctzll(bits));
#else
    size_t n = 0;
    while (!(bits >> n & 1)) ++n;
    return n;
#endif
  }

  std::vector<std::vector<uint64_t>> levels_;
};

// Longest first, equal lengths in their order: a counting sort.
std::vector<size_t> by_decreasing_length(const int64_t* lengths, size_t count) {
  const int64_t longest = count ? *std::max_element(lengths, lengths + count) : 0;
  std::vector<size_t> next(static_cast<size_t>(longest) + 2, 0);
  for (size_t i = 0; i < count; ++i) ++next[static_cast<size_t>(longest - lengths[i]) + 1];
  for (size_t l = 1; l < next.size(); ++l) next[l] += next[l - 1];
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) order[next[static_cast<size_t>(longest - lengths[i])]++] = i;
  return order;
}

// Each sequence goes into the fullest batch it fits; of equals into the one that got there last.
int64_t best_fit(const int64_t* lengths, const std::vector<size_t>& order, int64_t batch_tokens,
                 std::vector<int64_t>& batch_of) {
  BitSet rooms(static_cast<size_t>(batch_tokens) + 1);
  std::vector<int64_t> newest(static_cast<size_t>(batch_tokens) + 1, -1);  // by room: the batch that got there last ...
  std::vector<int64_t> older;                                              // ... and by batch: the one before it
  for (const size_t i : order) {
    int64_t room = rooms.at_least(static_cast<size_t>(lengths[i])), batch;
    if (room < 0) {
      batch = static_cast<int64_t>(older.size());
      older.push_back(-1);
      room = batch_tokens;
    } else {
      batch = newest[room];
      newest[room] = older[batch];
      if (newest[room] < 0) rooms.erase(static_cast<size_t>(room));
    }
    batch_of[i] = batch;
    room -= lengths[i];
    older[batch] = newest[room];
    newest[room] = batch;
    rooms.insert(static_cast<size_t>(room));
  }
  return static_cast<int64_t>(older.size());
}

// Each sequence goes into the emptiest batch, of equals into the first. False when one would overflow.
bool deal(const int64_t* lengths, const std::vector<size_t>& order, int64_t num_batches, int64_t batch_tokens,
          std::vector<int64_t>& batch_of) {
  using Batch = std::pair<int64_t, int64_t>;  // (tokens, number)
  std::priority_queue<Batch, std::vector<Batch>, std::greater<Batch>> emptiest;
  for (int64_t b = 0; b < num_batches; ++b) emptiest.emplace(0, b);
  for (const size_t i : order) {
    Batch batch = emptiest.top();
    emptiest.pop();
    batch.first += lengths[i];
    if (batch.first > batch_tokens) return false;
    batch_of[i] = batch.second;
    emptiest.push(batch);
  }
  return true;
}

}  // namespace

int64_t pack_batches(const int64_t* lengths, size_t count, int64_t batch_tokens, std::vector<int64_t>& batch_of) {
  const std::vector<size_t> order = by_decreasing_length(lengths, count);
  batch_of.assign(count, 0);
  const int64_t fewest = best_fit(lengths, order, batch_tokens, batch_of);
  std::vector<int64_t> even(count);
  for (const int64_t num_batches : {fewest, fewest + fewest / 100}) {
    if (!deal(lengths, order, num_batches, batch_tokens, even)) continue;
    batch_of = std::move(even);
    return num_batches;
  }
  return fewest;
}

}  // namespace fastbert
