// AVX2: two look-ups by half a byte classify 32 bytes at once.
#include "text/segment_scan.h"

#ifdef FASTBERT_X86
#include <immintrin.h>

#include <cstring>

#define FASTBERT_TARGET __attribute__((target("avx2,bmi")))

namespace fastbert {
namespace {

// kKeep + 16 - n, read as 16 bytes, keeps the first n bytes.
alignas(32) constexpr uint8_t kKeep[32] = {255, 255, 255, 255, 255, 255, 255, 255,
                                           255, 255, 255, 255, 255, 255, 255, 255};

struct Simd {
  struct Tables {
    FASTBERT_TARGET explicit Tables(const SegmentClasses& classes)
        : blank_by_low(broadcast(classes.blank_by_low)),
          punctuation_by_low(broadcast(classes.punctuation_by_low)),
          bit_by_high(_mm256_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64,
                                       -128, 0, 0, 0, 0, 0, 0, 0, 0)),
          lower_bit(_mm_set1_epi8(classes.lowercase ? 32 : 0)) {}
    FASTBERT_TARGET static __m256i broadcast(const uint8_t* table) {
      return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
    }
    __m256i blank_by_low, punctuation_by_low, bit_by_high;
    __m128i lower_bit;
  };

  FASTBERT_TARGET static inline void classify32(const Tables& tables, const uint8_t* block, uint32_t& blank,
                                                uint32_t& punctuation) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block));
    const __m256i nibble = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    const __m256i low = _mm256_and_si256(bytes, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
    const __m256i bit = _mm256_shuffle_epi8(tables.bit_by_high, high);  // 0 for bytes from 128 on
    const __m256i not_blank =
        _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(tables.blank_by_low, low), bit), zero);
    const __m256i not_punctuation =
        _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(tables.punctuation_by_low, low), bit), zero);
    blank = ~static_cast<uint32_t>(_mm256_movemask_epi8(not_blank));
    punctuation = ~static_cast<uint32_t>(_mm256_movemask_epi8(not_punctuation));
  }
  FASTBERT_TARGET static inline void classify(const Tables& tables, const uint8_t* block, uint64_t& blank,
                                              uint64_t& punctuation) {
    uint32_t blanks[2], punctuations[2];
    classify32(tables, block, blanks[0], punctuations[0]);
    classify32(tables, block + 32, blanks[1], punctuations[1]);
    blank = blanks[0] | uint64_t{blanks[1]} << 32;
    punctuation = punctuations[0] | uint64_t{punctuations[1]} << 32;
  }

  FASTBERT_TARGET static inline void store_key(const Tables& tables, const uint8_t* p, size_t length, uint64_t* key) {
    const __m128i keep = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kKeep + 16 - length));
    const __m128i bytes = _mm_and_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), keep);
    const __m128i upper =
        _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8('A' - 1)), _mm_cmpgt_epi8(_mm_set1_epi8('Z' + 1), bytes));
    const __m128i lower = _mm_add_epi8(bytes, _mm_and_si128(upper, tables.lower_bit));
    _mm_store_si128(reinterpret_cast<__m128i*>(key), _mm_insert_epi8(lower, static_cast<int>(length), 15));
  }

  FASTBERT_TARGET static inline bool equal(const uint64_t* key, const uint64_t* other) {
    const __m128i different = _mm_xor_si128(_mm_load_si128(reinterpret_cast<const __m128i*>(key)),
                                            _mm_load_si128(reinterpret_cast<const __m128i*>(other)));
    return _mm_testz_si128(different, different);
  }
  FASTBERT_TARGET static inline void store_ids(int32_t* out, const SegmentCache<uint16_t>::Short& slot) {
    const __m128i ids = _mm_load_si128(reinterpret_cast<const __m128i*>(slot.ids));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_cvtepu16_epi32(ids));
  }
  FASTBERT_TARGET static inline void store_ids(int32_t* out, const SegmentCache<uint32_t>::Short& slot) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_load_si128(reinterpret_cast<const __m128i*>(slot.ids)));
  }
};

}  // namespace
}  // namespace fastbert

#include "text/segment_scan_loop.h"

namespace fastbert {

template <class Id>
SegmentScan<Id> segment_scan_avx2() {
  return &scan<Id>;
}
template SegmentScan<uint16_t> segment_scan_avx2<uint16_t>();
template SegmentScan<uint32_t> segment_scan_avx2<uint32_t>();

}  // namespace fastbert
#endif
