// Small matrix products out of the near caches: C (M, N) = A (M, K) · B (K, N), in floats or in pairs of bf16 summed in
// floats. Included after a vec_*.h. No include guard needed: each source file includes it once.
//
// Everything is made of 32-bit units. With Floats a unit is one value and k counts values; with Pairs a unit is two
// bf16 that follow each other along K and k counts pairs, as vdpbf16ps wants them. N is a multiple of kLanes.
//  - A: unit (m, k) at a[m * row + k * step], so that a transposed matrix needs no copy.
//  - B: "panels" of up to kPanel columns, each panel its k rows of units one after another.

// before loops of fixed length over registers, where a compiler has to be told to keep these out of memory
#ifndef FASTBERT_UNROLLED
#define FASTBERT_UNROLLED
#endif

namespace fastbert {
namespace {

constexpr size_t kLanes = 16;                            // sizes are rounded up to it, whatever the registers hold
constexpr size_t kPanel = Vec::kWidth * Vec::kTileVecs;  // columns of a panel
constexpr size_t kDepth = 256;  // units summed before they join C: rounding errors grow with the length of one sum
constexpr size_t kTileRows = static_cast<size_t>(Vec::kTileRows);

struct NoScope {};  // Units::Scope: what a task that multiplies holds meanwhile

struct Floats {
  using Scope = NoScope;
  static constexpr bool kTiled = false;
  static constexpr size_t kRowBlock = 2 * kTileRows;  // rows of A that suit a product: even, and whole tiles
  static constexpr size_t kPer = 1;
  using Unit = float;
  static Vec::T broadcast(const Unit* p) { return Vec::set(*p); }
  static Vec::T dot(Vec::T sum, Vec::T a, Vec::T b) { return Vec::fma(a, b, sum); }
  // values j .. j + kWidth of a row
  static Vec::T load(const Unit* row, size_t j) { return Vec::load(row + j); }
  static void store(Unit* row, size_t j, Vec::T x) { Vec::store(row + j, x); }
  static void store_first(Unit* row, size_t j, Vec::T x, size_t n) { Vec::store_first(row + j, x, n); }
  // units of B for kWidth columns: from one row
  static void interleave(const Unit* rows, size_t, size_t column, Unit* out) {
    Vec::store(out, Vec::load(rows + column));
  }
};

}  // namespace
}  // namespace fastbert

#ifdef FASTBERT_BF16_UNITS
#ifdef FASTBERT_NEON
#include "cpu/pairs_neon.h"
#else
#include "cpu/pairs_avx512.h"
#endif
#endif

namespace fastbert {
namespace {

inline size_t rounded_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

template <class Unit>
Vec::T load_units(const Unit* p) {
  return Vec::load(reinterpret_cast<const float*>(p));
}

// B from rows (N, K): `rows` dense, row_units each, N a multiple of kLanes. out: panels over N, all k = row_units.
template <class Units>
void pack_transposed(const typename Units::Unit* rows, size_t row_units, size_t num_rows, typename Units::Unit* out) {
  for (size_t begin = 0; begin < num_rows; begin += kPanel) {
    const size_t width = std::min(kPanel, num_rows - begin);
    for (size_t k = 0; k < row_units; k += Vec::kWidth)
      for (size_t n = 0; n < width; n += Vec::kWidth) {
        Vec::T block[Vec::kWidth];
        for (size_t i = 0; i < Vec::kWidth; ++i) block[i] = load_units(rows + (begin + n + i) * row_units + k);
        Vec::transpose(block);
        const size_t depth = std::min(Vec::kWidth, row_units - k);
        for (size_t i = 0; i < depth; ++i) Vec::store(reinterpret_cast<float*>(out + (k + i) * width + n), block[i]);
      }
    out += row_units * width;
  }
}

// B from rows (K, N): `rows` dense, num_rows a multiple of kPer, `columns` values each. out: panels over the columns.
template <class Units>
void pack_rows(const typename Units::Unit* rows, size_t num_rows, size_t columns, typename Units::Unit* out) {
  const size_t row_units = columns / Units::kPer;
  for (size_t begin = 0; begin < columns; begin += kPanel) {
    const size_t width = std::min(kPanel, columns - begin);
    for (size_t i = 0; i < num_rows; i += Units::kPer, out += width)
      for (size_t n = 0; n < width; n += Vec::kWidth)
        Units::interleave(rows + i * row_units, row_units, begin + n, out + n);
  }
}

template <class Unit>
struct Left {  // A: unit (m, k) at units[m * row + k * step]
  const Unit* units;
  size_t row, step;
};

template <class Units, int kRows, int kVecs, bool kAdd>
void multiply_tile(Left<typename Units::Unit> a, const typename Units::Unit* panel, size_t width, size_t depth,
                   float* c, size_t c_row) {
  Vec::T sum[kRows][kVecs];
  FASTBERT_UNROLLED
  for (int m = 0; m < kRows; ++m) {
    FASTBERT_UNROLLED
    for (int n = 0; n < kVecs; ++n) sum[m][n] = Vec::set(0.0f);
  }
  for (size_t k = 0; k < depth; ++k, panel += width, a.units += a.step) {
    Vec::T b[kVecs];
    FASTBERT_UNROLLED
    for (int n = 0; n < kVecs; ++n) b[n] = load_units(panel + n * Vec::kWidth);
    FASTBERT_UNROLLED
    for (int m = 0; m < kRows; ++m) {
      const Vec::T x = Units::broadcast(a.units + m * a.row);
      FASTBERT_UNROLLED
      for (int n = 0; n < kVecs; ++n) sum[m][n] = Units::dot(sum[m][n], x, b[n]);
    }
  }
  FASTBERT_UNROLLED
  for (int m = 0; m < kRows; ++m) {
    FASTBERT_UNROLLED
    for (int n = 0; n < kVecs; ++n) {
      float* out = c + m * c_row + n * Vec::kWidth;
      Vec::store(out, kAdd ? Vec::load(out) + sum[m][n] : sum[m][n]);
    }
  }
}

template <class Units, int kVecs, bool kAdd>
void multiply_panel(Left<typename Units::Unit> a, size_t rows, const typename Units::Unit* panel, size_t width,
                    size_t depth, float* c, size_t c_row) {
  size_t m = 0;
  for (; m + kTileRows <= rows; m += kTileRows, a.units += kTileRows * a.row)
    multiply_tile<Units, Vec::kTileRows, kVecs, kAdd>(a, panel, width, depth, c + m * c_row, c_row);
  c += m * c_row;
  switch (rows - m) {
    case 5: return multiply_tile<Units, 5, kVecs, kAdd>(a, panel, width, depth, c, c_row);
    case 4: return multiply_tile<Units, 4, kVecs, kAdd>(a, panel, width, depth, c, c_row);
    case 3: return multiply_tile<Units, 3, kVecs, kAdd>(a, panel, width, depth, c, c_row);
    case 2: return multiply_tile<Units, 2, kVecs, kAdd>(a, panel, width, depth, c, c_row);
    case 1: return multiply_tile<Units, 1, kVecs, kAdd>(a, panel, width, depth, c, c_row);
    default: return;
  }
}

#ifdef FASTBERT_TILES
void multiply_tiled(Left<uint32_t> a, size_t rows, const uint32_t* b, size_t columns, size_t total_depth, size_t first,
                    size_t depth, float* c, size_t c_row, bool add);
#endif

// C (rows, columns) = or += A · B over B's units [first, first + depth) of total_depth. C's columns are B's.
template <class Units, bool kAdd>
void multiply(Left<typename Units::Unit> a, size_t rows, const typename Units::Unit* b, size_t columns,
              size_t total_depth, size_t first, size_t depth, float* c, size_t c_row) {
  if (depth > kDepth) {
    multiply<Units, kAdd>(a, rows, b, columns, total_depth, first, kDepth, c, c_row);
    a.units += kDepth * a.step;
    return multiply<Units, true>(a, rows, b, columns, total_depth, first + kDepth, depth - kDepth, c, c_row);
  }
#ifdef FASTBERT_TILES
  if constexpr (Units::kTiled) return multiply_tiled(a, rows, b, columns, total_depth, first, depth, c, c_row, kAdd);
#endif
  for (size_t begin = 0; begin < columns; begin += kPanel) {
    const size_t width = std::min(kPanel, columns - begin);
    const auto* panel = b + begin * total_depth + first * width;
    size_t n = 0;
    if (width == kPanel) {
      multiply_panel<Units, Vec::kTileVecs, kAdd>(a, rows, panel, width, depth, c + begin, c_row);
      continue;
    }
    if constexpr (Vec::kTileVecs >= 4)
      if (width - n >= 3 * Vec::kWidth) {
        multiply_panel<Units, 3, kAdd>(a, rows, panel + n, width, depth, c + begin + n, c_row);
        n += 3 * Vec::kWidth;
      }
    if constexpr (Vec::kTileVecs >= 3)
      for (; width - n >= 2 * Vec::kWidth; n += 2 * Vec::kWidth)
        multiply_panel<Units, 2, kAdd>(a, rows, panel + n, width, depth, c + begin + n, c_row);
    for (; n < width; n += Vec::kWidth)
      multiply_panel<Units, 1, kAdd>(a, rows, panel + n, width, depth, c + begin + n, c_row);
  }
}

}  // namespace
}  // namespace fastbert
