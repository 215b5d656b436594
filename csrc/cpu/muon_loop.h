// The update of muon.h, compiled once per instruction set: included after a vec_*.h and panels.h.
//
// Legend: R <= C the matrix lying down, both rounded up to kLanes, the extra rows and columns being zeros; units and
// panels as panels.h has them.
namespace fastbert {
namespace {

// A stretch of momentum moves towards the gradient; returns the direction, Nesterov's.
inline Vec::T turn(const MuonStep& s, const float* grad, float* momentum, size_t n) {
  const bool whole = n >= Vec::kWidth;
  const Vec::T g = whole ? Vec::load(grad) : Vec::load_first(grad, n);
  Vec::T m = whole ? Vec::load(momentum) : Vec::load_first(momentum, n);
  m = Vec::fma(g - m, Vec::set(1.0f - s.momentum), m);
  if (whole) Vec::store(momentum, m);
  else Vec::store_first(momentum, m, n);
  return Vec::fma(m - g, Vec::set(s.momentum), g);
}

// w ← kept · w + step · x
inline void move(const MuonPart& p, const MuonStep& s, size_t at, Vec::T x, size_t n) {
  if (n >= Vec::kWidth) {
    const Vec::T w = Vec::fma(x, Vec::set(p.step), Vec::load(p.weights + at) * Vec::set(s.kept));
    Vec::store(p.weights + at, w);
    if (p.image) Vec::store(p.image + at, w);
  } else {
    const Vec::T w = Vec::fma(x, Vec::set(p.step), Vec::load_first(p.weights + at, n) * Vec::set(s.kept));
    Vec::store_first(p.weights + at, w, n);
    if (p.image) Vec::store_first(p.image + at, w, n);
  }
}

template <class Units>
struct Muon {
  using Unit = typename Units::Unit;
  static constexpr size_t kPer = Units::kPer;

  struct Matrix {          // X, and what the iteration needs
    size_t rows, columns;  // R and C
    size_t bytes = 0;
    Unit *x, *packed, *gram, *quintic;
    float* tile;
    Matrix(size_t part_rows, size_t part_columns, void* base)
        : rows(rounded_up(std::min(part_rows, part_columns), kLanes)),
          columns(rounded_up(std::max(part_rows, part_columns), kLanes)) {
      x = take<Unit>(base, rows * columns / kPer);
      packed = take<Unit>(base, rows * columns / kPer);
      gram = take<Unit>(base, rows * rows / kPer);
      quintic = take<Unit>(base, rows * rows / kPer);
      tile = take<float>(base, rows * kPanel);
    }
    template <class E>
    E* take(void* base, size_t count) {
      E* piece = reinterpret_cast<E*>(static_cast<char*>(base) + bytes);
      bytes += rounded_up(count * sizeof(E) + 64, 64);  // transposing reads up to a register past the end
      return piece;
    }
    Unit* row(size_t i) const { return x + i * (columns / kPer); }
  };

  // X = D; returns |D|.
  static float gather(const MuonPart& p, const MuonStep& s, const Matrix& m) {
    std::memset(static_cast<void*>(m.x), 0, m.rows * m.columns / kPer * sizeof(Unit));
    const bool lying = p.rows <= p.columns;
    double squares = 0;
    for (size_t row = 0; row < p.rows; row += Vec::kWidth) {
      const size_t count = std::min(Vec::kWidth, p.rows - row);
      Vec::T sum = Vec::set(0.0f);
      for (size_t c = 0; c < p.columns; c += Vec::kWidth) {
        const size_t n = std::min(Vec::kWidth, p.columns - c);
        Vec::T block[Vec::kWidth];
        for (size_t i = 0; i < count; ++i) {
          const size_t at = (row + i) * p.columns + c;
          block[i] = turn(s, p.grad + at, p.momentum + at, n);
          sum = Vec::fma(block[i], block[i], sum);
          if (lying) Units::store_first(m.row(row + i), c, block[i], n);
        }
        if (lying) continue;
        for (size_t i = count; i < Vec::kWidth; ++i) block[i] = Vec::set(0.0f);
        Vec::transpose(block);
        for (size_t i = 0; i < n; ++i) Units::store(m.row(c + i), row, block[i]);
      }
      squares += static_cast<double>(Vec::sum(sum));
    }
    return static_cast<float>(std::sqrt(squares));
  }

  // Out (R, R) = of_added · added + of_product · left · packed, where that is symmetric; added may be null.
  static void symmetric(const Matrix& m, Left<Unit> left, size_t depth, float of_product, const Unit* added,
                        float of_added, Unit* out) {
    const size_t row_units = m.rows / kPer;
    for (size_t begin = 0; begin < m.rows; begin += kPanel) {
      const size_t width = std::min(kPanel, m.rows - begin);
      multiply<Units, false>(left, begin + width, m.packed + begin * depth, width, depth, 0, depth, m.tile, width);
      for (size_t i = 0; i < begin + width; ++i)
        for (size_t n = 0; n < width; n += Vec::kWidth) {
          Vec::T x = Vec::load(m.tile + i * width + n) * Vec::set(of_product);
          if (added) x = Vec::fma(Units::load(added + i * row_units, begin + n), Vec::set(of_added), x);
          Vec::store(m.tile + i * width + n, x);
          Units::store(out + i * row_units, begin + n, x);
        }
      for (size_t i = 0; i < begin; i += Vec::kWidth)  // the columns above are the rows to the left
        for (size_t n = 0; n < width; n += Vec::kWidth) {
          Vec::T block[Vec::kWidth];
          for (size_t k = 0; k < Vec::kWidth; ++k) block[k] = Vec::load(m.tile + (i + k) * width + n);
          Vec::transpose(block);
          for (size_t k = 0; k < Vec::kWidth; ++k) Units::store(out + (begin + n + k) * row_units, i, block[k]);
        }
    }
  }

  // X ← of_x · X + of_product · quintic · X
  static void advance(const Matrix& m, float of_x, float of_product) {
    const size_t depth = m.rows / kPer;
    pack_rows<Units>(m.x, m.rows, m.columns, m.packed);
    for (size_t begin = 0; begin < m.columns; begin += kPanel) {
      const size_t width = std::min(kPanel, m.columns - begin);
      multiply<Units, false>({m.quintic, depth, 1}, m.rows, m.packed + begin * depth, width, depth, 0, depth, m.tile,
                             width);
      for (size_t i = 0; i < m.rows; ++i)
        for (size_t n = 0; n < width; n += Vec::kWidth) {
          const Vec::T x = Units::load(m.row(i), begin + n) * Vec::set(of_x);
          Units::store(m.row(i), begin + n, Vec::fma(Vec::load(m.tile + i * width + n), Vec::set(of_product), x));
        }
    }
  }

  static void scatter(const MuonPart& p, const MuonStep& s, const Matrix& m) {
    const bool lying = p.rows <= p.columns;
    for (size_t row = 0; row < p.rows; row += Vec::kWidth) {
      const size_t count = std::min(Vec::kWidth, p.rows - row);
      for (size_t c = 0; c < p.columns; c += Vec::kWidth) {
        const size_t n = std::min(Vec::kWidth, p.columns - c);
        Vec::T block[Vec::kWidth];
        if (lying) {
          for (size_t i = 0; i < count; ++i) block[i] = Units::load(m.row(row + i), c);
        } else {
          for (size_t i = 0; i < Vec::kWidth; ++i) block[i] = Units::load(m.row(c + i), row);
          Vec::transpose(block);
        }
        for (size_t i = 0; i < count; ++i) move(p, s, (row + i) * p.columns + c, block[i], n);
      }
    }
  }

  static size_t scratch_bytes(size_t rows, size_t columns) { return Matrix(rows, columns, nullptr).bytes; }

  static void update(const MuonPart& p, const MuonStep& s, void* scratch) {
    const Matrix m(p.rows, p.columns, scratch);
    [[maybe_unused]] const typename Units::Scope scope;
    const float norm = std::max(gather(p, s, m), 1e-7f);
    float factor = 1.0f / norm;  // the first round multiplies by it: bf16's X is rounded once
    if constexpr (kPer == 1) {
      for (size_t i = 0; i < m.rows * m.columns; i += Vec::kWidth)
        Units::store(m.x, i, Units::load(m.x, i) / Vec::set(norm));
      factor = 1.0f;
    }
    for (int i = 0; i < s.iterations; ++i, factor = 1.0f) {
      pack_transposed<Units>(m.x, m.columns / kPer, m.rows, m.packed);
      symmetric(m, {m.x, m.columns / kPer, 1}, m.columns / kPer, factor * factor, nullptr, 0.0f, m.gram);
      pack_rows<Units>(m.gram, m.rows, m.rows, m.packed);
      symmetric(m, {m.gram, m.rows / kPer, 1}, m.rows / kPer, s.c, m.gram, s.b, m.quintic);
      advance(m, s.a * factor, factor);
    }
    scatter(p, s, m);
  }

  static constexpr MuonKernel kKernel{&scratch_bytes, &update};
};

}  // namespace
}  // namespace fastbert
