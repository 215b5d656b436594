// A hash table from byte strings to 64-bit counts, made for counting words: flat open addressing, keys in an arena.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace fastbert {

class CountTable {
 public:
  struct Slot {
    const uint8_t* bytes;  // null: empty
    uint32_t size;
    uint32_t hash;
    int64_t count;
  };

  // A hash of a key of at least one byte. It never shows in results.
  static uint32_t hash(const uint8_t* bytes, size_t size);

  // Ask for the memory that add_if_known will read: first the place of a hash, then the key that is there.
  void prefetch(uint32_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]);
  }
  void prefetch_key(uint32_t hash) const {
    if (!slots_.empty()) __builtin_prefetch(slots_[hash & (slots_.size() - 1)].bytes);
  }

  // Adds to the count of a key that is there; false when it is not. The counts together must stay within 2^63 - 1.
  bool add_if_known(const uint8_t* bytes, size_t size, uint32_t hash, int64_t count);
  // Adds to the count of a key, copying it into the table when it is new. Keys have 1 to 2^32 - 1 bytes.
  // Throws std::overflow_error when the counts together would exceed 2^63 - 1.
  void add(const uint8_t* bytes, size_t size, uint32_t hash, int64_t count);
  void add(const uint8_t* bytes, size_t size, int64_t count) { add(bytes, size, hash(bytes, size), count); }
  // Adds all counts of another table, or of this one itself.
  void add_all(const CountTable& other);

  // Number of distinct keys, and the sum of their counts.
  size_t size() const { return size_; }
  int64_t total() const { return total_; }

  // Forgets everything and gives the memory back.
  void clear() { *this = CountTable(); }

  // Calls visit(const Slot&) for every key, in no particular order.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (const Slot& slot : slots_)
      if (slot.bytes) visit(slot);
  }
  // The slots sorted by the bytes of their keys.
  std::vector<Slot> sorted() const;

 private:
  Slot* find(const uint8_t* bytes, size_t size, uint32_t hash);
  const uint8_t* store(const uint8_t* bytes, size_t size);
  void grow();

  std::vector<Slot> slots_;  // a power of two, never full
  size_t size_ = 0;
  int64_t total_ = 0;
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;  // keys never move
  size_t block_used_ = 0, block_size_ = 0;
};

}  // namespace fastbert
