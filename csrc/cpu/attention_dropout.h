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
inline void zero_dropped(Pairs, uint32_t* row, size_t size, const uint16_t* draws, uint32_t threshold) {
  Pairs::zero_dropped(row, size, draws, threshold);
}
inline void zero_dropped_units(Pairs, uint32_t* row, size_t size, const uint16_t* draws, size_t stride,
                               uint32_t threshold) {
  Pairs::zero_dropped_pair(row, size, draws, stride, threshold);
}
#endif

}  // namespace
}  // namespace fastbert
