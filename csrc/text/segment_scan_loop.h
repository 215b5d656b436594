// The loop of segment_scan.h, compiled once per instruction set. No include guard: each segment_scan_<isa>.cpp defines
// FASTBERT_TARGET (a function attribute) and, in an anonymous namespace, the struct Simd, then includes this file.
//
// struct Simd {
//   struct Tables;                               // constants kept in registers: Tables(const SegmentClasses&)
//   static void classify(const Tables&, const uint8_t* block, uint64_t& blank, uint64_t& punctuation);  // 64 bytes
//   // the key of a segment: zero-padded, lower-cased, its length last
//   static void store_key(const Tables&, const uint8_t* p, size_t length, uint64_t* key);
//   static bool equal(const uint64_t* key, const uint64_t* other);
//   static void store_ids(int32_t* out, const Slot&);                      // all ids of a slot, also the unused
// };
//
// store_key may read 16 bytes from p on; the loop calls it only where these are inside of the text.
//
// Two steps alternate: find segments and ask for their cache lines, for a few blocks; then look them up. The table is
// larger than the near caches, and this way many lines are on their way at once.

namespace fastbert {
namespace {

constexpr ptrdiff_t kQueueFull = 64;                // looked up when so many are waiting, or at the end of the text
constexpr size_t kQueueSize = kQueueFull + 64 + 1;  // one more block
constexpr size_t kQueueIds = kQueueSize * 7 + 16;   // they may store at most, the unused places of a slot included

template <class Id>
struct SegmentLoop {
  using Cache = SegmentCache<Id>;
  using Short = typename Cache::Short;

  struct Waiting {
    alignas(16) uint64_t key[2];
    Short* bucket;  // null for a segment that is too long for it
    const uint8_t* text;
    size_t length;
  };

  const SegmentClasses& classes;
  Cache& cache;
  SegmentEncoder& encoder;
  IdBuffer& ids;
  const typename Simd::Tables tables;
  const uint8_t* text_end = nullptr;
  int32_t* out = nullptr;
  Waiting queue[kQueueSize];

  FASTBERT_TARGET SegmentLoop(const SegmentClasses& segment_classes, Cache& segment_cache, SegmentEncoder& owner,
                              IdBuffer& buffer)
      : classes(segment_classes), cache(segment_cache), encoder(owner), ids(buffer), tables(segment_classes) {}

  // The segment is not known: have it encoded, and return how many ids it has.
  __attribute__((noinline)) size_t encode(const uint8_t* p, size_t length) {
    ids.set_end(out);
    const size_t before = ids.size();
    encoder.encode_segment(p, length, ids);
    const size_t count = ids.size() - before;
    ids.reserve_more(kQueueIds);
    out = ids.end();
    return count;
  }

  __attribute__((noinline)) void encode_short(const Waiting& waiting) {
    const size_t count = encode(waiting.text, waiting.length);
    if (count <= Short::kMaxIds) cache.insert(waiting.bucket, waiting.key, out - count, count);
  }

  __attribute__((noinline)) void encode_long(const uint8_t* p, size_t length) {
    if (length > Cache::Long::kMaxLength) {
      encode(p, length);
      return;
    }
    uint64_t key[4] = {};
    auto* bytes = reinterpret_cast<uint8_t*>(key);
    std::memcpy(bytes, p, length);
    if (classes.lowercase)
      for (size_t i = 0; i < length; ++i)
        if (bytes[i] >= 'A' && bytes[i] <= 'Z') bytes[i] = static_cast<uint8_t>(bytes[i] + 32);
    bytes[31] = static_cast<uint8_t>(length);
    typename Cache::Long* slot = cache.long_slot(key);
    if (!std::memcmp(slot->key, key, sizeof key)) {
      for (size_t i = 0; i < static_cast<size_t>(slot->count); ++i) *out++ = static_cast<int32_t>(slot->ids[i]);
      return;
    }
    const size_t count = encode(p, length);
    if (count <= Cache::Long::kMaxIds) Cache::fill(*slot, key, out - count, count);
  }

  FASTBERT_TARGET inline __attribute__((always_inline)) void enqueue(const uint8_t* p, size_t length, Waiting*& next) {
    Waiting& waiting = *next++;
    waiting.text = p;
    waiting.length = length;
    waiting.bucket = nullptr;
    if (__builtin_expect(length > Short::kMaxLength, 0)) return;
    uint8_t padded[16];
    const uint8_t* readable = p;
    if (__builtin_expect(text_end - p < 16, 0)) {
      std::memcpy(padded, p, length);
      readable = padded;
    }
    Simd::store_key(tables, readable, length, waiting.key);
    waiting.bucket = cache.bucket(waiting.key[0], waiting.key[1]);
    __builtin_prefetch(waiting.bucket);
  }

  FASTBERT_TARGET void look_up(const Waiting* end) {
    ids.set_end(out);
    ids.reserve_more(kQueueIds);
    int32_t* to = ids.end();  // not the member, which every store of ids might change as far as the compiler knows
    for (const Waiting* waiting = queue; waiting != end; ++waiting) {
      if (__builtin_expect(waiting->bucket == nullptr, 0)) {
        out = to;
        encode_long(waiting->text, waiting->length);
        to = out;
        continue;
      }
      // no branch on which of the two it is: that cannot be predicted
      const bool first = Simd::equal(waiting->key, waiting->bucket[0].key);
      const bool second = Simd::equal(waiting->key, waiting->bucket[1].key);
      if (__builtin_expect(!(first | second), 0)) {
        out = to;
        encode_short(*waiting);
        to = out;
        continue;
      }
      const Short& slot = waiting->bucket[second];
      Simd::store_ids(to, slot);
      to += slot.count;
    }
    out = to;
  }

  FASTBERT_TARGET void run(const uint8_t* text, size_t num_bytes) {
    text_end = text + num_bytes;
    out = ids.end();
    Waiting* next = queue;           // the first free place
    const uint8_t* begin = nullptr;  // of the segment that is going on
    uint64_t inside = 0;             // 1 when the byte before the block is part of one
    for (size_t offset = 0; offset < num_bytes; offset += 64) {
      const uint8_t* block = text + offset;
      uint64_t blank, punctuation;
      if (num_bytes - offset >= 64) {
        Simd::classify(tables, block, blank, punctuation);
      } else {
        uint8_t tail[64];
        std::memset(tail, ' ', sizeof tail);
        std::memcpy(tail, block, num_bytes - offset);
        Simd::classify(tables, tail, blank, punctuation);
      }
      const uint64_t part = ~(blank | punctuation);
      const uint64_t word_starts = part & ~(part << 1 | inside);
      const uint64_t starts = word_starts | punctuation;
      uint64_t ends = starts | blank;  // wherever a segment cannot go on
      inside = part >> 63;
      if (begin) {
        if (!ends) continue;
        enqueue(begin, static_cast<size_t>(block + __builtin_ctzll(ends) - begin), next);
        begin = nullptr;
      }
      for (uint64_t left = starts; left;) {
        const int start = __builtin_ctzll(left);
        left &= left - 1;
        ends &= ~uint64_t{0} << start << 1;
        if (!ends) {
          begin = block + start;
          break;
        }
        enqueue(block + start, static_cast<size_t>(__builtin_ctzll(ends) - start), next);
      }
      if (next - queue >= kQueueFull) {
        look_up(next);
        next = queue;
      }
    }
    // a text that fills its last block; the padding ends a segment otherwise
    if (begin) enqueue(begin, static_cast<size_t>(text + num_bytes - begin), next);
    look_up(next);
    ids.set_end(out);
  }
};

template <class Id>
FASTBERT_TARGET void scan(const SegmentClasses& classes, SegmentCache<Id>& cache, SegmentEncoder& encoder,
                          const uint8_t* text, size_t num_bytes, IdBuffer& ids) {
  SegmentLoop<Id>(classes, cache, encoder, ids).run(text, num_bytes);
}

}  // namespace
}  // namespace fastbert
