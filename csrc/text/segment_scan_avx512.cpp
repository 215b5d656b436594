// AVX-512 with VBMI: a 128-entry table look-up classifies 64 bytes at once.
#include "text/segment_scan.h"

#ifdef FASTBERT_X86
#include <immintrin.h>

#include <cstring>

#define FASTBERT_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,bmi,bmi2,avx2")))

namespace fastbert {
namespace {

struct Simd {
  struct Tables {
    FASTBERT_TARGET explicit Tables(const SegmentClasses& classes)
        : low(_mm512_load_si512(classes.by_byte)),
          high(_mm512_load_si512(classes.by_byte + 64)),
          range(_mm_set1_epi8(classes.lowercase ? 'Z' - 'A' : -1)) {}
    __m512i low, high;
    __m128i range;  // -1: no letter is below 0, nothing changes
  };

  FASTBERT_TARGET static inline void classify(const Tables& tables, const uint8_t* block, uint64_t& blank,
                                              uint64_t& punctuation) {
    const __m512i bytes = _mm512_loadu_si512(block);
    const uint64_t ascii = ~static_cast<uint64_t>(_mm512_movepi8_mask(bytes));
    const __m512i kinds = _mm512_permutex2var_epi8(tables.low, bytes, tables.high);  // indexes by the low 7 bits
    blank = _mm512_test_epi8_mask(kinds, _mm512_set1_epi8(1)) & ascii;
    punctuation = _mm512_test_epi8_mask(kinds, _mm512_set1_epi8(2)) & ascii;
  }

  FASTBERT_TARGET static inline void store_key(const Tables& tables, const uint8_t* p, size_t length, uint64_t* key) {
    const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << length) - 1), p);
    const __m128i from_a = _mm_sub_epi8(bytes, _mm_set1_epi8('A'));
    // signed: the bytes below 'A' or above 'Z' give negative or larger numbers
    const __mmask16 upper = _mm_cmp_epi8_mask(from_a, tables.range, _MM_CMPINT_LE) &
                            _mm_cmp_epi8_mask(from_a, _mm_setzero_si128(), _MM_CMPINT_NLT);
    const __m128i lower = _mm_mask_add_epi8(bytes, upper, bytes, _mm_set1_epi8(32));
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
SegmentScan<Id> segment_scan_avx512() {
  return &scan<Id>;
}
template SegmentScan<uint16_t> segment_scan_avx512<uint16_t>();
template SegmentScan<uint32_t> segment_scan_avx512<uint32_t>();

}  // namespace fastbert
#endif
