#include "data/philox.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__)) && !defined(FASTBERT_PORTABLE)
#define FASTBERT_X86 1
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 takes its own _mm512_undefined_epi32() for a mistake (gcc bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif
#if defined(__aarch64__) && !defined(FASTBERT_PORTABLE)
#define FASTBERT_NEON 1
#include <arm_neon.h>
#endif

namespace fastbert {
namespace {

constexpr uint32_t kMultiply0 = 0xD2511F53u, kMultiply1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;  // golden ratio, sqrt(3) - 1
constexpr int kRounds = 10;

void portable(uint64_t key, const uint32_t* c0, const uint32_t* c1, const uint32_t* c2, uint32_t c3, size_t begin,
              size_t count, uint32_t* out) {
  for (size_t i = begin; i < count; ++i) {
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    uint32_t x0 = c0[i], x1 = c1[i], x2 = c2[i], x3 = c3;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t p0 = static_cast<uint64_t>(kMultiply0) * x0, p1 = static_cast<uint64_t>(kMultiply1) * x2;
      x0 = static_cast<uint32_t>(p1 >> 32) ^ x1 ^ k0;
      x2 = static_cast<uint32_t>(p0 >> 32) ^ x3 ^ k1;
      x1 = static_cast<uint32_t>(p1);
      x3 = static_cast<uint32_t>(p0);
      k0 += kWeyl0;
      k1 += kWeyl1;
    }
    out[4 * i] = x0, out[4 * i + 1] = x1, out[4 * i + 2] = x2, out[4 * i + 3] = x3;
  }
}

#ifdef FASTBERT_X86
// One block per 64-bit lane. Only the low half of a lane counts: the 32-bit multiply reads no more, so the rounds need
// no shuffles; the high halves hold rubbish until the words are put together at the end.
__attribute__((target("avx512f"))) void avx512(uint64_t key, const uint32_t* c0, const uint32_t* c1, const uint32_t* c2,
                                               uint32_t c3, size_t count, uint32_t* out) {
  const __m512i m0 = _mm512_set1_epi64(kMultiply0), m1 = _mm512_set1_epi64(kMultiply1);
  const __m512i low = _mm512_set1_epi64(0xFFFFFFFFll);
  const __m512i first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
  const __m512i second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    __m512i x0[2], x1[2], x2[2], x3[2];  // two in flight hide the multiply's latency
    for (int h = 0; h < 2; ++h) {
      const size_t at = i + 8 * h;
      x0[h] = _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(c0 + at)));
      x1[h] = _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(c1 + at)));
      x2[h] = _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(c2 + at)));
      x3[h] = _mm512_set1_epi64(c3);
    }
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const __m512i key0 = _mm512_set1_epi64(k0), key1 = _mm512_set1_epi64(k1);
      for (int h = 0; h < 2; ++h) {
        const __m512i p0 = _mm512_mul_epu32(x0[h], m0), p1 = _mm512_mul_epu32(x2[h], m1);
        // 0x96: a ^ b ^ c
        x0[h] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), x1[h], key0, 0x96);
        x2[h] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), x3[h], key1, 0x96);
        x1[h] = p1;
        x3[h] = p0;
      }
      k0 += kWeyl0;
      k1 += kWeyl1;
    }
    for (int h = 0; h < 2; ++h) {
      const __m512i a = _mm512_or_si512(_mm512_and_si512(x0[h], low), _mm512_slli_epi64(x1[h], 32));
      const __m512i b = _mm512_or_si512(_mm512_and_si512(x2[h], low), _mm512_slli_epi64(x3[h], 32));
      uint32_t* to = out + 4 * (i + 8 * h);
      _mm512_storeu_si512(to, _mm512_permutex2var_epi64(a, first, b));
      _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi64(a, second, b));
    }
  }
  portable(key, c0, c1, c2, c3, i, count, out);
}

__attribute__((target("avx2"))) void avx2(uint64_t key, const uint32_t* c0, const uint32_t* c1, const uint32_t* c2,
                                          uint32_t c3, size_t count, uint32_t* out) {
  const __m256i m0 = _mm256_set1_epi64x(kMultiply0), m1 = _mm256_set1_epi64x(kMultiply1);
  const __m256i low = _mm256_set1_epi64x(0xFFFFFFFFll);
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    __m256i x0[2], x1[2], x2[2], x3[2];
    for (int h = 0; h < 2; ++h) {
      const size_t at = i + 4 * h;
      x0[h] = _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(c0 + at)));
      x1[h] = _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(c1 + at)));
      x2[h] = _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(c2 + at)));
      x3[h] = _mm256_set1_epi64x(c3);
    }
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
      for (int h = 0; h < 2; ++h) {
        const __m256i p0 = _mm256_mul_epu32(x0[h], m0), p1 = _mm256_mul_epu32(x2[h], m1);
        x0[h] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p1, 32), x1[h]), key0);
        x2[h] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p0, 32), x3[h]), key1);
        x1[h] = p1;
        x3[h] = p0;
      }
      k0 += kWeyl0;
      k1 += kWeyl1;
    }
    for (int h = 0; h < 2; ++h) {
      const __m256i a = _mm256_or_si256(_mm256_and_si256(x0[h], low), _mm256_slli_epi64(x1[h], 32));
      const __m256i b = _mm256_or_si256(_mm256_and_si256(x2[h], low), _mm256_slli_epi64(x3[h], 32));
      const __m256i even = _mm256_unpacklo_epi64(a, b), odd = _mm256_unpackhi_epi64(a, b);  // blocks 0 2 | 1 3
      uint32_t* to = out + 4 * (i + 4 * h);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute2x128_si256(even, odd, 0x20));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), _mm256_permute2x128_si256(even, odd, 0x31));
    }
  }
  portable(key, c0, c1, c2, c3, i, count, out);
}
#endif

#ifdef FASTBERT_NEON
// One block per lane; a product's halves are parted again by unzipping.
void neon(uint64_t key, const uint32_t* c0, const uint32_t* c1, const uint32_t* c2, uint32_t c3, size_t count,
          uint32_t* out) {
  const auto low = [](uint64x2_t a, uint64x2_t b) {
    return vuzp1q_u32(vreinterpretq_u32_u64(a), vreinterpretq_u32_u64(b));
  };
  const auto high = [](uint64x2_t a, uint64x2_t b) {
    return vuzp2q_u32(vreinterpretq_u32_u64(a), vreinterpretq_u32_u64(b));
  };
  const uint32x4_t m0 = vdupq_n_u32(kMultiply0), m1 = vdupq_n_u32(kMultiply1);
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    uint32x4x4_t x[2];  // two in flight hide the multiply's latency
    for (int h = 0; h < 2; ++h) {
      const size_t at = i + 4 * h;
      x[h] = {{vld1q_u32(c0 + at), vld1q_u32(c1 + at), vld1q_u32(c2 + at), vdupq_n_u32(c3)}};
    }
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < kRounds; ++round) {
      const uint32x4_t key0 = vdupq_n_u32(k0), key1 = vdupq_n_u32(k1);
      for (int h = 0; h < 2; ++h) {
        auto& v = x[h].val;
        const uint64x2_t p0 = vmull_u32(vget_low_u32(v[0]), vget_low_u32(m0)), p0_high = vmull_high_u32(v[0], m0);
        const uint64x2_t p1 = vmull_u32(vget_low_u32(v[2]), vget_low_u32(m1)), p1_high = vmull_high_u32(v[2], m1);
        v[0] = veorq_u32(veorq_u32(high(p1, p1_high), v[1]), key0);
        v[2] = veorq_u32(veorq_u32(high(p0, p0_high), v[3]), key1);
        v[1] = low(p1, p1_high);
        v[3] = low(p0, p0_high);
      }
      k0 += kWeyl0;
      k1 += kWeyl1;
    }
    for (int h = 0; h < 2; ++h) vst4q_u32(out + 4 * (i + 4 * h), x[h]);
  }
  portable(key, c0, c1, c2, c3, i, count, out);
}
#endif

int best_path() {
  static const int best = philox_path_supported(2) ? 2 : philox_path_supported(1) ? 1 : 0;
  return best;
}

}  // namespace

bool philox_path_supported(int path) {
#ifdef FASTBERT_X86
  if (path == 1) return __builtin_cpu_supports("avx2");
  if (path == 2) return __builtin_cpu_supports("avx512f");
#elif defined(FASTBERT_NEON)
  if (path == 1) return true;
#endif
  return path == 0;
}

void philox_blocks_on(int path, uint64_t key, const uint32_t* c0, const uint32_t* c1, const uint32_t* c2, uint32_t c3,
                      size_t count, uint32_t* out) {
#ifdef FASTBERT_X86
  if (path == 2) return avx512(key, c0, c1, c2, c3, count, out);
  if (path == 1) return avx2(key, c0, c1, c2, c3, count, out);
#elif defined(FASTBERT_NEON)
  if (path == 1) return neon(key, c0, c1, c2, c3, count, out);
#endif
  (void)path;
  portable(key, c0, c1, c2, c3, 0, count, out);
}

void philox_blocks(uint64_t key, const uint32_t* c0, const uint32_t* c1, const uint32_t* c2, uint32_t c3, size_t count,
                   uint32_t* out) {
  philox_blocks_on(best_path(), key, c0, c1, c2, c3, count, out);
}

}  // namespace fastbert
