// Finds the segments of a text, 64 bytes at a time, and looks each up in the cache.
#pragma once
#include <cstddef>
#include <cstdint>

#include "text/normalizer.h"
#include "text/segment_cache.h"
#include "system/simd.h"
#include "text/tokenizer_ids.h"

namespace fastbert {

// The ASCII characters that end a segment, in the forms the instruction sets want. Every other byte is part of a
// segment, also the bytes of non-ASCII characters.
struct SegmentClasses {
  explicit SegmentClasses(const NormalizerOptions& options);

  // 1: a blank, dropped; 2: punctuation, a segment of its own; 0: part of a segment. By byte; 0 from 128 on.
  alignas(64) uint8_t by_byte[256] = {};
  // By the low four bits of a byte: bit h is set when the character h << 4 | low is in the class.
  alignas(16) uint8_t blank_by_low[16] = {}, punctuation_by_low[16] = {};
  bool lowercase;
};

// Encodes segments that the cache does not know: appends the ids of `num_bytes` of raw text.
struct SegmentEncoder {
  virtual void encode_segment(const uint8_t* text, size_t num_bytes, IdBuffer& ids) = 0;

 protected:
  ~SegmentEncoder() = default;
};

// Appends the ids of a text to `ids`. Reads no byte outside of it.
template <class Id>
using SegmentScan = void (*)(const SegmentClasses& classes, SegmentCache<Id>& cache, SegmentEncoder& encoder,
                             const uint8_t* text, size_t num_bytes, IdBuffer& ids);

// The loop for an instruction set of available_simd_levels().
template <class Id>
SegmentScan<Id> segment_scan(SimdLevel level);

// One per instruction set, in a source of its own.
template <class Id>
SegmentScan<Id> segment_scan_scalar();
template <class Id>
SegmentScan<Id> segment_scan_neon();
template <class Id>
SegmentScan<Id> segment_scan_avx2();
template <class Id>
SegmentScan<Id> segment_scan_avx512();

}  // namespace fastbert
