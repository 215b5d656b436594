// NEON: two look-ups by half a byte classify 16 bytes at once.
#include "text/segment_scan.h"

#ifdef FASTBERT_NEON
#include <arm_neon.h>

#include <cstring>

#define FASTBERT_TARGET

namespace fastbert {
namespace {

// kKeep + 16 - n, read as 16 bytes, keeps the first n bytes.
alignas(32) constexpr uint8_t kKeep[32] = {255, 255, 255, 255, 255, 255, 255, 255,
                                           255, 255, 255, 255, 255, 255, 255, 255};
constexpr uint8_t kBitByHigh[16] = {1, 2, 4, 8, 16, 32, 64, 128};
constexpr uint8_t kBitByPlace[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};

struct Simd {
  struct Tables {
    explicit Tables(const SegmentClasses& classes)
        : blank_by_low(vld1q_u8(classes.blank_by_low)),
          punctuation_by_low(vld1q_u8(classes.punctuation_by_low)),
          bit_by_high(vld1q_u8(kBitByHigh)),
          lower_bit(vdupq_n_u8(classes.lowercase ? 32 : 0)) {}
    uint8x16_t blank_by_low, punctuation_by_low, bit_by_high, lower_bit;
  };

  // One bit a byte of four vectors of 0 or 255, in order.
  static inline uint64_t mask_of(const uint8x16_t* members) {
    const uint8x16_t place = vld1q_u8(kBitByPlace);
    const uint8x16_t first = vpaddq_u8(vandq_u8(members[0], place), vandq_u8(members[1], place));
    const uint8x16_t second = vpaddq_u8(vandq_u8(members[2], place), vandq_u8(members[3], place));
    uint8x16_t sum = vpaddq_u8(first, second);
    sum = vpaddq_u8(sum, sum);
    return vgetq_lane_u64(vreinterpretq_u64_u8(sum), 0);
  }

  static inline void classify(const Tables& tables, const uint8_t* block, uint64_t& blank, uint64_t& punctuation) {
    uint8x16_t blanks[4], punctuations[4];
    for (int i = 0; i < 4; ++i) {
      const uint8x16_t bytes = vld1q_u8(block + 16 * i);
      const uint8x16_t low = vandq_u8(bytes, vdupq_n_u8(15));
      const uint8x16_t bit = vqtbl1q_u8(tables.bit_by_high, vshrq_n_u8(bytes, 4));  // 0 for bytes from 128 on
      blanks[i] = vtstq_u8(vqtbl1q_u8(tables.blank_by_low, low), bit);
      punctuations[i] = vtstq_u8(vqtbl1q_u8(tables.punctuation_by_low, low), bit);
    }
    blank = mask_of(blanks);
    punctuation = mask_of(punctuations);
  }

  static inline void store_key(const Tables& tables, const uint8_t* p, size_t length, uint64_t* key) {
    const uint8x16_t bytes = vandq_u8(vld1q_u8(p), vld1q_u8(kKeep + 16 - length));
    const uint8x16_t upper = vcltq_u8(vsubq_u8(bytes, vdupq_n_u8('A')), vdupq_n_u8(26));
    const uint8x16_t lower = vaddq_u8(bytes, vandq_u8(upper, tables.lower_bit));
    vst1q_u64(key, vreinterpretq_u64_u8(vsetq_lane_u8(static_cast<uint8_t>(length), lower, 15)));
  }

  static inline bool equal(const uint64_t* key, const uint64_t* other) {
    const uint64x2_t different = veorq_u64(vld1q_u64(key), vld1q_u64(other));
    return (vgetq_lane_u64(different, 0) | vgetq_lane_u64(different, 1)) == 0;
  }

  static inline void store_ids(int32_t* out, const SegmentCache<uint16_t>::Short& slot) {
    const uint16x8_t ids = vld1q_u16(slot.ids);  // the eighth is the count
    vst1q_s32(out, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(ids))));
    vst1q_s32(out + 4, vreinterpretq_s32_u32(vmovl_high_u16(ids)));
  }
  static inline void store_ids(int32_t* out, const SegmentCache<uint32_t>::Short& slot) {
    vst1q_s32(out, vreinterpretq_s32_u32(vld1q_u32(slot.ids)));
  }
};

}  // namespace
}  // namespace fastbert

#include "text/segment_scan_loop.h"

namespace fastbert {

template <class Id>
SegmentScan<Id> segment_scan_neon() {
  return &scan<Id>;
}
template SegmentScan<uint16_t> segment_scan_neon<uint16_t>();
template SegmentScan<uint32_t> segment_scan_neon<uint32_t>();

}  // namespace fastbert
#endif
