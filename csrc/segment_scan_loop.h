// The loop of segment_scan.h, compiled once per instruction set. No include guard: each segment_scan_<isa>.cpp defines
// FASTBERT_TARGET (a function attribute) and, in an anonymous namespace, the struct Simd, then includes this file.
//
// struct Simd {
//   struct Tables;                               // constants kept in registers: Tables(const SegmentClasses&)
//   static void classify(const Tables&, const uint8_t* block, uint64_t& blank, uint64_t& punctuation);  // 64 bytes
//   static Key16 key16(const Tables&, const uint8_t* p, size_t length);   // zero-padded, lower-cased, length last
//   static bool equal(const Key16&, const uint64_t* key);
//   static void words(const Key16&, uint64_t* out);                        // as two 64-bit words
//   static void store_ids(int32_t* out, const Slot&);                      // all ids of a slot, also the unused
// };
//
// key16 may read 16 bytes from p on; the loop calls it only where these are inside of the text.

namespace fastbert {
namespace {

// Ids a block may store at most: a segment a byte, the unused places of the last slot included.
constexpr size_t kBlockIds = 64 * 7 + 16;

template <class Id>
struct SegmentLoop {
  using Cache = SegmentCache<Id>;

  const SegmentClasses& classes;
  Cache& cache;
  SegmentEncoder& encoder;
  IdBuffer& ids;
  const uint8_t* text_end;
  typename Simd::Tables tables;
  int32_t* out;

  // The segment is not known: have it encoded, and return how many ids it has.
  __attribute__((noinline)) size_t encode(const uint8_t* p, size_t length) {
    ids.set_end(out);
    const size_t before = ids.size();
    encoder.encode_segment(p, length, ids);
    const size_t count = ids.size() - before;
    ids.reserve_more(kBlockIds);
    out = ids.end();
    return count;
  }

  __attribute__((noinline)) void encode_short(const uint8_t* p, size_t length, typename Cache::Short* bucket,
                                              const uint64_t* key) {
    const size_t count = encode(p, length);
    if (count <= Cache::Short::kMaxIds) Cache::insert(bucket, key, out - count, count);
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
      for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(bytes[i] + 32 * (bytes[i] >= 'A' && bytes[i] <= 'Z'));
    bytes[31] = static_cast<uint8_t>(length);
    typename Cache::Long* slot = cache.long_slot(key);
    if (!std::memcmp(slot->key, key, sizeof key)) {
      for (size_t i = 0; i < static_cast<size_t>(slot->count); ++i) *out++ = static_cast<int32_t>(slot->ids[i]);
      return;
    }
    const size_t count = encode(p, length);
    if (count <= Cache::Long::kMaxIds) Cache::fill(*slot, key, out - count, count);
  }

  FASTBERT_TARGET inline __attribute__((always_inline)) void segment(const uint8_t* p, size_t length) {
    if (__builtin_expect(length > Cache::Short::kMaxLength, 0)) return encode_long(p, length);
    uint8_t padded[16];
    const uint8_t* readable = p;
    if (__builtin_expect(text_end - p < 16, 0)) {
      std::memcpy(padded, p, length);
      readable = padded;
    }
    const typename Simd::Key16 key = Simd::key16(tables, readable, length);
    uint64_t words[2];
    Simd::words(key, words);
    typename Cache::Short* bucket = cache.bucket(words[0], words[1]);
    if (__builtin_expect(!Simd::equal(key, bucket->key), 0)) {
      if (!Simd::equal(key, bucket[1].key)) return encode_short(p, length, bucket, words);
      ++bucket;
    }
    Simd::store_ids(out, *bucket);
    out += bucket->count;
  }

  FASTBERT_TARGET void run(const uint8_t* text, size_t num_bytes) {
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
      ids.set_end(out);
      ids.reserve_more(kBlockIds);
      out = ids.end();

      const uint64_t part = ~(blank | punctuation);
      const uint64_t word_starts = part & ~(part << 1 | inside);
      const uint64_t starts = word_starts | punctuation;
      uint64_t ends = starts | blank;  // wherever a segment cannot go on
      inside = part >> 63;
      if (begin) {
        if (!ends) continue;
        segment(begin, static_cast<size_t>(block + __builtin_ctzll(ends) - begin));
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
        segment(block + start, static_cast<size_t>(__builtin_ctzll(ends) - start));
      }
    }
    // a text that fills its last block; the padding ends a segment otherwise
    if (begin) segment(begin, static_cast<size_t>(text + num_bytes - begin));
    ids.set_end(out);
  }
};

template <class Id>
FASTBERT_TARGET void scan(const SegmentClasses& classes, SegmentCache<Id>& cache, SegmentEncoder& encoder,
                          const uint8_t* text, size_t num_bytes, IdBuffer& ids) {
  ids.reserve_more(kBlockIds);
  SegmentLoop<Id> loop{classes, cache, encoder, ids, text + num_bytes, typename Simd::Tables(classes), ids.end()};
  loop.run(text, num_bytes);
}

}  // namespace
}  // namespace fastbert
