// Up to 64 tokens as the bits of one word, lowest bit first: what makes branch-free masking short.
// -DFASTBERT_PORTABLE builds this, Philox and the masker without intrinsics, to test what other processors run.
#pragma once
#include <cstdint>

#if defined(__SSE2__) && !defined(FASTBERT_PORTABLE)
#include <emmintrin.h>
#endif

namespace fastbert {

inline uint64_t lowest_bits(int count) { return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1; }

// bits must not be 0.
inline int lowest_bit(uint64_t bits) {
#if defined(__GNUC__) || defined(__clang__)
  return __builtin_ctzll(bits);
#else
  int n = 0;
  while (!(bits >> n & 1)) ++n;
  return n;
#endif
}

// Bit i: words[i] <= last, for i < count <= 64. words must be readable up to the next multiple of 16.
inline uint64_t bits_at_most(const uint32_t* words, int count, uint32_t last) {
  uint64_t bits = 0;
#if defined(__SSE2__) && !defined(FASTBERT_PORTABLE)
  const __m128i flip = _mm_set1_epi32(INT32_MIN);  // SSE2 compares signed numbers only
  const __m128i limit = _mm_xor_si128(_mm_set1_epi32(static_cast<int>(last)), flip);
  for (int i = 0; i < count; i += 16) {
    __m128i more[4];
    for (int j = 0; j < 4; ++j) {
      const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words + i + 4 * j));
      more[j] = _mm_cmpgt_epi32(_mm_xor_si128(v, flip), limit);
    }
    const __m128i bytes = _mm_packs_epi16(_mm_packs_epi32(more[0], more[1]), _mm_packs_epi32(more[2], more[3]));
    bits |= static_cast<uint64_t>(~_mm_movemask_epi8(bytes) & 0xFFFF) << i;
  }
#else
  for (int i = 0; i < count; ++i) bits |= static_cast<uint64_t>(words[i] <= last) << i;
#endif
  return bits & lowest_bits(count);
}

// Bit i of low and high: bit 0 and bit 1 of flags[ids[i]], for i < count <= 64.
inline void flag_bits(const uint8_t* flags, const int64_t* ids, int count, uint64_t& low, uint64_t& high) {
  low = high = 0;
#if defined(__SSE2__) && !defined(FASTBERT_PORTABLE)
  alignas(16) uint8_t bytes[64];
  for (int i = 0; i < count; ++i) bytes[i] = flags[ids[i]];
  for (int i = count; i & 15; ++i) bytes[i] = 0;
  for (int i = 0; i < count; i += 16) {
    const __m128i v = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes + i));
    // the wished bit of each byte becomes its top bit
    low |= static_cast<uint64_t>(_mm_movemask_epi8(_mm_slli_epi16(v, 7))) << i;
    high |= static_cast<uint64_t>(_mm_movemask_epi8(_mm_slli_epi16(v, 6))) << i;
  }
#else
  for (int i = 0; i < count; ++i) {
    const uint64_t flag = flags[ids[i]];
    low |= (flag & 1) << i;
    high |= (flag >> 1 & 1) << i;
  }
#endif
}

// Of every run of set bits in `runs`, the whole run when its first bit is in `firsts` (some of the runs' first bits).
// Adding a run's first bit to it carries through the run and clears it.
inline uint64_t runs_beginning_at(uint64_t runs, uint64_t firsts) { return runs & ~(runs + firsts); }

}  // namespace fastbert
