// The tasks of linear.h, compiled once per instruction set: included after a vec_*.h and panels.h.
//
// A task is a panel of columns (panels.h) for a block of rows, kSummed units of depth at a time: that part of the
// panel stays in the near caches for all rows of the block.
namespace fastbert {
namespace {

constexpr size_t kBlockRows = 96, kSummed = 128;
constexpr size_t kLine = 64;                                                   // bytes of a cache line
constexpr int kPanelLines = static_cast<int>(kPanel * sizeof(float) / kLine);  // for every unit of depth

// Whether a sum of Units is of whole numbers (linear.h), and needs their scales: two rows of floats before a block's
// units.
template <class Units>
constexpr bool kQuantized = false;

struct RowScales {  // of one block: row m's at m * step
  const float *scale, *lowest;
  size_t step;
};

// C (kRows, kVecs registers) = start or 0, or += with `add`, A · B; kAhead lines of `ahead` are fetched for each unit.
template <class Units, int kRows, int kVecs, int kAhead>
void linear_tile(const typename Units::Unit* a, size_t a_row, const typename Units::Unit* panel, size_t width,
                 size_t depth, const float* start, bool add, float* c, size_t c_row, const char* ahead,
                 const RowScales& scales) {
  const auto* header = reinterpret_cast<const float*>(panel);
  if constexpr (kQuantized<Units>) panel += 2 * width;
  Vec::T sum[kRows][kVecs];
  FASTBERT_UNROLLED
  for (int n = 0; n < kVecs; ++n) {
    const Vec::T first = start && !kQuantized<Units> ? Vec::load(start + n * Vec::kWidth) : Vec::set(0.0f);
    FASTBERT_UNROLLED
    for (int m = 0; m < kRows; ++m) sum[m][n] = first;
  }
  for (size_t k = 0; k < depth; ++k, panel += width, ahead += kAhead * kLine) {
    for (int line = 0; line < kAhead; ++line) __builtin_prefetch(ahead + line * kLine, 0, 2);
    Vec::T b[kVecs];
    FASTBERT_UNROLLED
    for (int n = 0; n < kVecs; ++n) b[n] = load_units(panel + n * Vec::kWidth);
    FASTBERT_UNROLLED
    for (int m = 0; m < kRows; ++m) {
      const Vec::T x = Units::broadcast(a + m * a_row + k);
      FASTBERT_UNROLLED
      for (int n = 0; n < kVecs; ++n) sum[m][n] = Units::dot(sum[m][n], x, b[n]);
    }
  }
  FASTBERT_UNROLLED
  for (int m = 0; m < kRows; ++m) {
    FASTBERT_UNROLLED
    for (int n = 0; n < kVecs; ++n) {
      float* out = c + m * c_row + n * Vec::kWidth;
      if constexpr (kQuantized<Units>) {
        const float *weights = header + n * Vec::kWidth, *totals = weights + width;
        const size_t row = m * scales.step;
        Vec::T y = add ? Vec::load(out) : start ? Vec::load(start + n * Vec::kWidth) : Vec::set(0.0f);
        y = Vec::fma(Vec::set(scales.lowest[row]), Vec::load(totals), y);
        y = Vec::fma(Units::number(sum[m][n]) * Vec::load(weights), Vec::set(scales.scale[row]), y);
        Vec::store(out, y);
      } else {
        Vec::store(out, add ? Vec::load(out) + sum[m][n] : sum[m][n]);
      }
    }
  }
}

template <class Units>
using TileFunction = void (*)(const typename Units::Unit*, size_t, const typename Units::Unit*, size_t, size_t,
                              const float*, bool, float*, size_t, const char*, const RowScales&);

template <class Units, int kVecs, int kAhead>
TileFunction<Units> tile_of(size_t rows) {
  switch (rows) {
    case 1: return &linear_tile<Units, 1, kVecs, kAhead>;
    case 2: return &linear_tile<Units, 2, kVecs, kAhead>;
    case 3: return &linear_tile<Units, 3, kVecs, kAhead>;
    case 4: return &linear_tile<Units, 4, kVecs, kAhead>;
    case 5: return &linear_tile<Units, 5, kVecs, kAhead>;
    default: return &linear_tile<Units, 6, kVecs, kAhead>;
  }
}

template <class Units>
TileFunction<Units> tile_of(size_t rows, size_t vecs, int ahead) {
  static_assert(kTileRows == 6);
  if (vecs == static_cast<size_t>(Vec::kTileVecs)) {
    if constexpr (kPanelLines >= 4)
      if (ahead == 4) return tile_of<Units, Vec::kTileVecs, 4>(rows);
    if constexpr (kPanelLines >= 2)
      if (ahead == 2) return tile_of<Units, Vec::kTileVecs, 2>(rows);
    if (ahead == 1) return tile_of<Units, Vec::kTileVecs, 1>(rows);
    return tile_of<Units, Vec::kTileVecs, 0>(rows);
  }
  if constexpr (Vec::kTileVecs >= 4)
    if (vecs == 3) return tile_of<Units, 3, 0>(rows);
  if constexpr (Vec::kTileVecs >= 3)
    if (vecs == 2) return tile_of<Units, 2, 0>(rows);
  return tile_of<Units, 1, 0>(rows);
}

template <class Units, class Element>
struct LinearTasks {
  using Unit = typename Units::Unit;
  static constexpr size_t kPer = Units::kPer;
  static constexpr size_t kSummed =  // units of depth that are summed before they join C
      kQuantized<Units> ? kQuantBlock / kPer : 128 * kPer;
  static constexpr size_t kHeader = kQuantized<Units> ? 2 : 0;  // rows before the units
  static constexpr bool kInPlace = sizeof(Element) == sizeof(float);

  static size_t packed_bytes(size_t in, size_t out) {
    return rounded_up(out, kLanes) * rounded_up(in, kPer) / kPer * sizeof(Unit);
  }

  static void pack(const void* weight, size_t in, size_t out, void* packed) {
    const size_t padded_in = rounded_up(in, kLanes), units = rounded_up(in, kPer) / kPer;
    auto* panel = static_cast<Unit*>(packed);
    // a panel's rows one unit row after another, with zeros behind; transposing reads a register past the end
    const size_t row_bytes = units * sizeof(Unit), size = kPanel * row_bytes + padded_in * sizeof(Element);
    auto* rows = static_cast<char*>(std::malloc(size));
    if (!rows) throw std::bad_alloc();
    for (size_t begin = 0; begin < out; begin += kPanel) {
      const size_t width = std::min(kPanel, rounded_up(out - begin, kLanes)), there = std::min(width, out - begin);
      std::memset(rows, 0, size);
      for (size_t n = 0; n < there; ++n)
        std::memcpy(rows + n * row_bytes, static_cast<const Element*>(weight) + (begin + n) * in, in * sizeof(Element));
      pack_transposed<Units>(reinterpret_cast<const Unit*>(rows), units, width, panel);
      panel += width * units;
    }
    std::free(rows);
  }

  static size_t num_panels(const Linear& of) { return (of.out + kPanel - 1) / kPanel; }
  static size_t num_tasks(const Linear& of) { return (of.rows + kBlockRows - 1) / kBlockRows * num_panels(of); }

  static void run(const Linear& of, size_t task) {
    const size_t begin = task % num_panels(of) * kPanel, first = task / num_panels(of) * kBlockRows;
    const size_t rows = std::min(kBlockRows, of.rows - first), there = std::min(kPanel, of.out - begin);
    const size_t width = std::min(kPanel, rounded_up(of.out - begin, kLanes)), units = of.in / kPer;
    const auto* x = static_cast<const Unit*>(of.x) + first * units;
    const size_t blocks = (units + kSummed - 1) / kSummed;
    const auto* part = static_cast<const Unit*>(of.packed) + begin * (units + kHeader * blocks);
    auto* y = static_cast<Element*>(of.y) + first * of.out + begin;
    alignas(64) float sums[kBlockRows * kPanel];
    const bool in_place = kInPlace && there == width;
    float* c = in_place ? reinterpret_cast<float*>(y) : sums;
    const size_t c_row = in_place ? of.out : kPanel;
    // tiles of nearly as many rows each: one of a single row would wait for its own sums
    const size_t tiles = (rows + kTileRows - 1) / kTileRows;
    const int ahead = tiles == 1 ? kPanelLines : tiles < 4 ? (kPanelLines + 1) / 2 : (kPanelLines + 3) / 4;
    const size_t fetching = static_cast<size_t>(kPanelLines / ahead);  // tiles that fetch a share of what comes next
    const size_t vecs = width / Vec::kWidth;
    for (size_t done = 0, block = first * blocks; done < units; done += kSummed, ++block) {
      const size_t depth = std::min(kSummed, units - done);
      const Unit* following = part + (depth + kHeader) * width;
      const auto* next = reinterpret_cast<const char*>(following);
      for (size_t tile = 0, row = 0; tile < tiles; ++tile) {
        const size_t count = rows / tiles + (tile < rows % tiles);
        const bool fetches = tile < fetching;
        const auto product = tile_of<Units>(count, vecs, fetches ? ahead : 0);
        product(x + row * units + done, units, part, width, depth, done || !of.bias ? nullptr : of.bias + begin, done,
                c + row * c_row, c_row, next + tile * depth * static_cast<size_t>(ahead) * kLine,
                {of.scale + block + row * blocks, of.lowest + block + row * blocks, blocks});
        row += count;
      }
      part = following;
    }
    if (in_place) return;
    for (size_t row = 0; row < rows; ++row)
      for (size_t n = 0; n < there; n += Vec::kWidth)
        if (there - n >= Vec::kWidth) Vec::store(y + row * of.out + n, Vec::load(sums + row * kPanel + n));
        else Vec::store_first(y + row * of.out + n, Vec::load(sums + row * kPanel + n), there - n);
  }

  static constexpr LinearKernel kKernel{&packed_bytes, &pack, &num_tasks, &run};
};

}  // namespace
}  // namespace fastbert
