// Remembers the ids of raw text segments, so that most text is never normalised at all.
//
// A segment is what lies between ASCII blanks and punctuation, or one punctuation character. Nothing moves or joins
// across those when text is normalised, hence a segment's ids depend on its raw bytes alone, and these (ASCII letters
// lower-cased where the tokenizer does so) are the key. One cache per thread; it answers or it does not, and never
// changes a result.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

namespace fastbert {

// The last byte of a key is its length: zero padding cannot be mistaken for NULs in the text, and a free slot (all
// zeros) matches nothing.
template <class Id, size_t KeyBytes, size_t SlotBytes>
struct SegmentSlot {
  static constexpr size_t kMaxLength = KeyBytes - 1;
  static constexpr size_t kMaxIds = (SlotBytes - KeyBytes) / sizeof(Id) - 1;
  uint64_t key[KeyBytes / 8];
  Id ids[kMaxIds];
  Id count;
};

// A zeroed block of memory, in large pages where the system has them.
class PageBlock {
 public:
  explicit PageBlock(size_t num_bytes);
  ~PageBlock();
  PageBlock(const PageBlock&) = delete;
  PageBlock& operator=(const PageBlock&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
  size_t num_bytes_ = 0;
};

template <class Id>
class SegmentCache {
 public:
  using Short = SegmentSlot<Id, 16, 32>;  // up to 15 bytes; 7 ids of 16 bits or 3 of 32
  using Long = SegmentSlot<Id, 32, 64>;   // up to 31 bytes
#ifdef FASTBERT_SMALL_CACHES              // for the fuzz targets: full at once
  static constexpr size_t kLeastBuckets = 4, kMostBuckets = 4;
#else
  static constexpr size_t kLeastBuckets = size_t{1} << 9, kMostBuckets = size_t{1} << 17;
#endif
  static constexpr size_t kTextBytesPerBucket = 64;

  // How many buckets, of two slots that share a cache line, pay for so much text: a large table is dear to fill with
  // zeros and to reach, a small one forgets.
  static size_t buckets_for(size_t text_bytes) {
    size_t buckets = kLeastBuckets;
    while (buckets < kMostBuckets && 2 * buckets * kTextBytesPerBucket <= text_bytes) buckets *= 2;
    return buckets;
  }

  explicit SegmentCache(size_t num_buckets)
      : num_buckets_(num_buckets), memory_(num_buckets * 2 * sizeof(Short) + num_long() * sizeof(Long)) {
    short_ = static_cast<Short*>(memory_.get());
    long_ = reinterpret_cast<Long*>(short_ + num_buckets * 2);
  }

  size_t num_buckets() const { return num_buckets_; }

  // Every bit of the key reaches the low bits: a product carries upwards only, so the high half is folded back. The
  // hashes are the same for every instruction set.
  static size_t hash(uint64_t a, uint64_t b) {
    uint64_t h = (a ^ (b << 32 | b >> 32)) * 0x9E3779B97F4A7C15ull;
    h = (h ^ h >> 32 ^ b) * 0xC2B2AE3D27D4EB4Full;
    return static_cast<size_t>(h ^ h >> 32);
  }
  Short* bucket(uint64_t a, uint64_t b) { return short_ + (hash(a, b) & (num_buckets_ - 1)) * 2; }
  Long* long_slot(const uint64_t* key) {
    return long_ + (hash(key[0] + key[2] * 0x165667B19E3779F9ull, key[1] ^ key[3]) & (num_long() - 1));
  }

  // Puts a segment into its bucket. Of a full one it takes the second place, the first only now and then: words that
  // are met early are mostly those that are met often, and stay.
  void insert(Short* bucket, const uint64_t* key, const int32_t* ids, size_t count) {
    const bool second = !is_free(bucket[0]) && (is_free(bucket[1]) || ++num_evictions_ % 8);
    fill(bucket[second], key, ids, count);
  }
  // Takes over what a smaller cache knows.
  void take(SegmentCache& smaller) {
    for (const Short* slot = smaller.short_; slot != smaller.short_ + 2 * smaller.num_buckets_; ++slot) {
      Short* const to = bucket(slot->key[0], slot->key[1]);
      if (!is_free(*slot)) to[!is_free(to[0])] = *slot;
    }
    for (const Long* slot = smaller.long_; slot != smaller.long_ + smaller.num_long(); ++slot)
      if (slot->key[3]) *long_slot(slot->key) = *slot;
  }
  template <class Slot>
  static void fill(Slot& slot, const uint64_t* key, const int32_t* ids, size_t count) {
    std::memcpy(slot.key, key, sizeof slot.key);
    for (size_t i = 0; i < count; ++i) slot.ids[i] = static_cast<Id>(ids[i]);
    slot.count = static_cast<Id>(count);
  }

 private:
  size_t num_long() const { return num_buckets_ < 64 ? 4 : num_buckets_ / 16; }
  // the last byte of a key in use is its length
  static bool is_free(const Short& slot) { return slot.key[1] == 0; }

  size_t num_buckets_;
  PageBlock memory_;
  Short* short_;
  Long* long_;
  uint32_t num_evictions_ = 0;
};

// A thread's cache, made on first use, and larger the more text it has seen.
template <class Id>
class GrowingCache {
 public:
  // So much text is about to come.
  void expect(size_t text_bytes) { expected_ = seen_ + text_bytes; }

  // The cache for a text of so many bytes.
  SegmentCache<Id>& next(size_t text_bytes) {
    seen_ += text_bytes;
    if (std::max(seen_, expected_) >= grows_at_) grow();
    return *cache_;
  }

 private:
  using Cache = SegmentCache<Id>;

  void grow() {
    const size_t buckets = Cache::buckets_for(std::max(seen_, expected_));
    auto larger = std::make_unique<Cache>(buckets);
    if (cache_) larger->take(*cache_);
    cache_ = std::move(larger);
    // moving costs time, too: not for less than four times as many
    grows_at_ = 4 * buckets > Cache::kMostBuckets ? SIZE_MAX : 4 * buckets * Cache::kTextBytesPerBucket;
  }

  std::unique_ptr<Cache> cache_;
  size_t seen_ = 0, expected_ = 0, grows_at_ = 0;
};

static_assert(sizeof(SegmentCache<uint16_t>::Short) == 32 && sizeof(SegmentCache<uint32_t>::Short) == 32);
static_assert(sizeof(SegmentCache<uint16_t>::Long) == 64 && sizeof(SegmentCache<uint32_t>::Long) == 64);

}  // namespace fastbert
