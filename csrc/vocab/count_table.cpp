#include "vocab/count_table.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace fastbert {
namespace {

constexpr size_t kFirstSlots = 256;
constexpr size_t kFirstBlockBytes = 4096, kBlockBytes = 1 << 20;

uint64_t load64(const uint8_t* bytes) {
  uint64_t value;
  std::memcpy(&value, bytes, 8);
  return value;
}

uint64_t load32(const uint8_t* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, 4);
  return value;
}

// Words are short: a call of memcmp costs more than the comparison.
bool equal(const uint8_t* a, const uint8_t* b, size_t size) {
  if (size >= 8) {
    for (size_t i = 0; i + 8 < size; i += 8)
      if (load64(a + i) != load64(b + i)) return false;
    return load64(a + size - 8) == load64(b + size - 8);
  }
  if (size >= 4) return load32(a) == load32(b) && load32(a + size - 4) == load32(b + size - 4);
  return a[0] == b[0] && a[size / 2] == b[size / 2] && a[size - 1] == b[size - 1];
}

uint64_t mix(uint64_t state, uint64_t value) {
  state = (state ^ value) * 0x9E3779B97F4A7C15u;
  return state ^ (state >> 32);
}

}  // namespace

uint32_t CountTable::hash(const uint8_t* bytes, size_t size) {
  uint64_t state = size * 0xD6E8FEB86659FD93u;
  const uint8_t* const end = bytes + size;
  if (size >= 8) {
    for (; end - bytes > 8; bytes += 8) state = mix(state, load64(bytes));
    state = mix(state, load64(end - 8));
  } else if (size >= 4) {
    state = mix(state, load32(bytes) | load32(end - 4) << 32);
  } else {
    state = mix(state, bytes[0] | bytes[size / 2] << 8 | bytes[size - 1] << 16);
  }
  return static_cast<uint32_t>(mix(state, state >> 29));
}

CountTable::Slot* CountTable::find(const uint8_t* bytes, size_t size, uint32_t hash) {
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    Slot& slot = slots_[i];
    if (!slot.bytes || (slot.hash == hash && slot.size == size && equal(slot.bytes, bytes, size))) return &slot;
  }
}

bool CountTable::add_if_known(const uint8_t* bytes, size_t size, uint32_t hash, int64_t count) {
  if (slots_.empty()) return false;
  Slot* slot = find(bytes, size, hash);
  if (!slot->bytes) return false;
  slot->count += count;
  total_ += count;
  return true;
}

void CountTable::add(const uint8_t* bytes, size_t size, uint32_t hash, int64_t count) {
  if (count > std::numeric_limits<int64_t>::max() - total_)
    throw std::overflow_error("the counts add up to more than 2**63 - 1");
  if (add_if_known(bytes, size, hash, count)) return;
  if (8 * (size_ + 1) > 5 * slots_.size()) grow();
  *find(bytes, size, hash) = Slot{store(bytes, size), static_cast<uint32_t>(size), hash, count};
  ++size_;
  total_ += count;
}

void CountTable::add_all(const CountTable& other) {
  // keys of the table itself are all known, so nothing moves while it is read
  other.for_each([&](const Slot& slot) { add(slot.bytes, slot.size, slot.hash, slot.count); });
}

std::vector<CountTable::Slot> CountTable::sorted() const {
  std::vector<Slot> result;
  result.reserve(size_);
  for_each([&](const Slot& slot) { result.push_back(slot); });
  std::sort(result.begin(), result.end(), [](const Slot& a, const Slot& b) {
    const int order = std::memcmp(a.bytes, b.bytes, std::min(a.size, b.size));
    return order != 0 ? order < 0 : a.size < b.size;
  });
  return result;
}

const uint8_t* CountTable::store(const uint8_t* bytes, size_t size) {
  if (size > block_size_ - block_used_) {
    // small tables stay small: the first blocks double
    const size_t wanted = std::min(kBlockBytes, std::max(kFirstBlockBytes, 2 * block_size_));
    const size_t fresh_size = std::max(wanted, size);
    blocks_.push_back(std::make_unique<uint8_t[]>(fresh_size));
    block_size_ = fresh_size;
    block_used_ = 0;
  }
  uint8_t* place = blocks_.back().get() + block_used_;
  std::memcpy(place, bytes, size);
  block_used_ += size;
  return place;
}

void CountTable::grow() {
  std::vector<Slot> old(std::max(kFirstSlots, 2 * slots_.size()));
  old.swap(slots_);
  const size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (!slot.bytes) continue;
    size_t i = slot.hash & mask;
    while (slots_[i].bytes) i = (i + 1) & mask;
    slots_[i] = slot;
  }
}

}  // namespace fastbert
