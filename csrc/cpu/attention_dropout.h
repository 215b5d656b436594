// Dropped attention weights: zeros where the draw lies below the threshold. Included after panels.h, once per source
// file.
namespace fastbert {
namespace {

inline void zero_dropped(Floats, float* row, size_t size, const uint16_t* draws, uint32_t threshold) {
  for (size_t j = 0; j < size; ++j) row[j] = draws[j] < threshold ? 0.0f : row[j];
}
// kPer rows as the products of the backward want them, from the draws of those rows, `stride` apart
inline void zero_dropped_units(Floats units, float* row, size_t size, const uint16_t* draws, size_t,
                               uint32_t threshold) {
  zero_dropped(units, row, size, draws, threshold);
}

#ifdef FASTBERT_BF16_UNITS
inline __m256i draws_at(const uint16_t* draws) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(draws)); }

inline void zero_dropped(Pairs, uint32_t* row, size_t size, const uint16_t* draws, uint32_t threshold) {
  const __m256i limit = _mm256_set1_epi16(static_cast<int16_t>(threshold));
  for (size_t j = 0; j < size; j += 16) {  // size is a multiple of kLanes
    auto* at = reinterpret_cast<__m256i*>(row + j / 2);
    const __mmask16 kept = _mm256_cmpge_epu16_mask(draws_at(draws + j), limit);
    _mm256_storeu_si256(at, _mm256_maskz_mov_epi16(kept, _mm256_loadu_si256(at)));
  }
}
inline void zero_dropped_units(Pairs, uint32_t* row, size_t size, const uint16_t* draws, size_t stride,
                               uint32_t threshold) {
  const __m512i limit = _mm512_set1_epi16(static_cast<int16_t>(threshold));
  for (size_t j = 0; j < size; j += 16) {
    const __m512i both = Pairs::joined(draws_at(draws + j), draws_at(draws + stride + j));
    const __mmask32 kept = _mm512_cmpge_epu16_mask(both, limit);
    _mm512_storeu_si512(row + j, _mm512_maskz_mov_epi16(kept, _mm512_loadu_si512(row + j)));
  }
}
#endif

}  // namespace
}  // namespace fastbert
