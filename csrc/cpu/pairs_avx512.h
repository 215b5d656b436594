// Pairs of bf16 as the units of panels.h, in AVX-512's registers. Included by panels.h.
namespace fastbert {
namespace {

struct Pairs {
  using Scope = NoScope;
  static constexpr bool kTiled = false;  // tiles.h does its products in AMX's tiles
  static constexpr size_t kRowBlock = 2 * kTileRows;
  static constexpr size_t kPer = 2;
  using Unit = uint32_t;
  static Vec::T broadcast(const Unit* p) { return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*p))); }
  static Vec::T dot(Vec::T sum, Vec::T a, Vec::T b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static __m256i narrow(Vec::T x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
  static Vec::T load(const Unit* row, size_t j) { return Vec::load(reinterpret_cast<const Bf16*>(row) + j); }
  static void store(Unit* row, size_t j, Vec::T x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(reinterpret_cast<Bf16*>(row) + j), narrow(x));
  }
  static void store_first(Unit* row, size_t j, Vec::T x, size_t n) {
    _mm256_mask_storeu_epi16(reinterpret_cast<Bf16*>(row) + j, Vec::first(n), narrow(x));
  }
  static __m512i joined(__m256i even, __m256i odd) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
  }
  // out[c] = (x[c], y[c]): two rows of a matrix as one row of units
  static void store_pair(Unit* out, Vec::T x, Vec::T y) { _mm512_storeu_si512(out, joined(narrow(x), narrow(y))); }
  static void interleave(const Unit* rows, size_t row_units, size_t column, Unit* out) {
    const auto* even = reinterpret_cast<const Bf16*>(rows) + column;
    const auto* odd = reinterpret_cast<const Bf16*>(rows + row_units) + column;
    _mm512_storeu_si512(out, joined(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even)),
                                    _mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd))));
  }

  // Zeros where the draw lies below the threshold: a row's values, size a multiple of kLanes
  static __m256i draws_at(const uint16_t* draws) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(draws)); }
  static void zero_dropped(Unit* row, size_t size, const uint16_t* draws, uint32_t threshold) {
    const __m256i limit = _mm256_set1_epi16(static_cast<int16_t>(threshold));
    for (size_t j = 0; j < size; j += 16) {
      auto* at = reinterpret_cast<__m256i*>(row + j / 2);
      const __mmask16 kept = _mm256_cmpge_epu16_mask(draws_at(draws + j), limit);
      _mm256_storeu_si256(at, _mm256_maskz_mov_epi16(kept, _mm256_loadu_si256(at)));
    }
  }
  // the same of a row of units made of two rows, whose draws are `stride` apart
  static void zero_dropped_pair(Unit* row, size_t size, const uint16_t* draws, size_t stride, uint32_t threshold) {
    const __m512i limit = _mm512_set1_epi16(static_cast<int16_t>(threshold));
    for (size_t j = 0; j < size; j += 16) {
      const __m512i both = joined(draws_at(draws + j), draws_at(draws + stride + j));
      const __mmask32 kept = _mm512_cmpge_epu16_mask(both, limit);
      _mm512_storeu_si512(row + j, _mm512_maskz_mov_epi16(kept, _mm512_loadu_si512(row + j)));
    }
  }
};

}  // namespace
}  // namespace fastbert
