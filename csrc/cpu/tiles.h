// The products of panels.h on AMX's tiles: 16 x 16 floats += 16 x 32 bf16 · 32 x 16 bf16 in one instruction, 256
// times the products of a vdpbf16ps. Included after vec_avx512.h (with FASTBERT_BF16_UNITS) and panels.h, once per
// source file.
//
// The panels of B are what tdpbf16ps reads: a tile of B is 16 rows of a panel, 16 columns wide. A tile of A is 16 rows
// of 16 units. Tiles 0 .. 3 hold 32 x 32 of C, 4 and 5 hold A, 6 and 7 hold B. What is no whole tile is copied with
// zeros.
//
// The instructions are written out, so that the compiler needs no AMX of its own and keeps every access to memory in
// place.
//
// Reference: Intel Architecture Instruction Set Extensions Programming Reference, chapter 3 (AMX).
namespace fastbert {
namespace {

constexpr size_t kTile = 16;  // rows of every tile, and its columns in units

struct TileConfig {  // of all eight tiles, as ldtilecfg wants it
  uint8_t palette = 0, first_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tiles are of a thread: a task sets them up and leaves them as it found them, for they serve oneDNN too.
class TileScope {
 public:
  TileScope() {
    TileConfig ours;
    ours.palette = 1;
    for (int i = 0; i < 8; ++i) ours.row_bytes[i] = 4 * kTile, ours.rows[i] = kTile;
    asm volatile("sttilecfg %0" : "=m"(before_));
    asm volatile("ldtilecfg %0" : : "m"(ours));
  }
  ~TileScope() {
    if (before_.palette) asm volatile("ldtilecfg %0" : : "m"(before_));
    else asm volatile("tilerelease");
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  TileConfig before_;
};

template <int kNumber>
void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kNumber));
}
template <int kNumber>
void tile_load(const void* rows, size_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(row_bytes), "i"(kNumber) : "memory");
}
template <int kNumber>
void tile_store(void* rows, size_t row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(row_bytes), "i"(kNumber) : "memory");
}
template <int kSum, int kA, int kB>
void tile_dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

struct Tiles : Pairs {
  using Scope = TileScope;
  static constexpr bool kTiled = true;
  static constexpr size_t kRowBlock = 2 * kTile;
};

struct TileRows {  // tiles of A along K: tile k of the rows r · 16 … at units + r · below + k · next
  const uint32_t* units;
  size_t row_bytes, below, next;
};

// 16 rows from `row` on, of which `rows` are there, as tiles one after another; depth is filled up with zeros.
inline void pack_tiles(Left<uint32_t> a, size_t rows, size_t depth, uint32_t* out) {
  for (size_t k = 0; k < depth; k += kTile, out += kTile * kTile) {
    const size_t there = std::min(kTile, depth - k);
    if (a.step == 1) {
      for (size_t m = 0; m < kTile; ++m) {
        const auto* row = reinterpret_cast<const float*>(a.units + m * a.row + k);
        Vec::store(reinterpret_cast<float*>(out + m * kTile), m < rows ? Vec::load_first(row, there) : Vec::set(0.0f));
      }
    } else {  // its rows lie along K
      Vec::T block[kTile];
      for (size_t i = 0; i < kTile; ++i) {
        const auto* column = reinterpret_cast<const float*>(a.units + (k + i) * a.step);
        block[i] = i < there ? Vec::load_first(column, rows) : Vec::set(0.0f);
      }
      Vec::transpose(block);
      for (size_t m = 0; m < kTile; ++m) Vec::store(reinterpret_cast<float*>(out + m * kTile), block[m]);
    }
  }
}

// A tile of C, of which `rows` are wanted.
template <int kNumber>
void store_rows(float* c, size_t c_row, size_t rows, bool add) {
  if (rows >= kTile && !add) return tile_store<kNumber>(c, c_row * sizeof(float));
  alignas(64) float sums[kTile * kTile];
  tile_store<kNumber>(sums, kTile * sizeof(float));
  for (size_t m = 0; m < std::min(rows, kTile); ++m) {
    const Vec::T x = Vec::load(sums + m * kTile);
    Vec::store(c + m * c_row, add ? Vec::load(c + m * c_row) + x : x);
  }
}

// C (rows, 16 kColumns) = or += A · B; `tail`: the last rows of B, where they do not fill a tile, else null.
template <int kRows, int kColumns>
void multiply_tiles(const TileRows& a, size_t rows, const uint32_t* panel, size_t width, const uint32_t* tail,
                    size_t num_tiles, float* c, size_t c_row, bool add) {
  tile_zero<0>();
  if constexpr (kColumns > 1) tile_zero<1>();
  if constexpr (kRows > 1) tile_zero<2>();
  if constexpr (kRows > 1 && kColumns > 1) tile_zero<3>();
  for (size_t k = 0; k < num_tiles; ++k) {
    const uint32_t* b = tail && k + 1 == num_tiles ? tail : panel + k * kTile * width;
    tile_load<4>(a.units + k * a.next, a.row_bytes);
    tile_load<6>(b, width * sizeof(uint32_t));
    tile_dot<0, 4, 6>();
    if constexpr (kColumns > 1) {
      tile_load<7>(b + kTile, width * sizeof(uint32_t));
      tile_dot<1, 4, 7>();
    }
    if constexpr (kRows > 1) {
      tile_load<5>(a.units + a.below + k * a.next, a.row_bytes);
      tile_dot<2, 5, 6>();
    }
    if constexpr (kRows > 1 && kColumns > 1) tile_dot<3, 5, 7>();
  }
  store_rows<0>(c, c_row, rows, add);
  if constexpr (kColumns > 1) store_rows<1>(c + kTile, c_row, rows, add);
  if constexpr (kRows > 1) store_rows<2>(c + kTile * c_row, c_row, rows - kTile, add);
  if constexpr (kRows > 1 && kColumns > 1) store_rows<3>(c + kTile * c_row + kTile, c_row, rows - kTile, add);
}

// What multiply() of panels.h does for these units; depth <= kDepth.
inline void multiply_tiled(Left<uint32_t> a, size_t rows, const uint32_t* b, size_t columns, size_t total_depth,
                           size_t first, size_t depth, float* c, size_t c_row, bool add) {
  alignas(64) uint32_t packed[2 * kTile * kDepth], tail[kTile * kPanel];
  const size_t num_tiles = (depth + kTile - 1) / kTile, over = depth % kTile;
  for (size_t m = 0; m < rows; m += 2 * kTile) {
    const size_t count = std::min(2 * kTile, rows - m);
    const Left<uint32_t> block{a.units + m * a.row, a.row, a.step};
    TileRows from{block.units, a.row * sizeof(uint32_t), kTile * a.row, kTile};
    if (a.step != 1 || over || count % kTile) {
      from = {packed, kTile * sizeof(uint32_t), num_tiles * kTile * kTile, kTile * kTile};
      for (size_t i = 0; i < count; i += kTile)
        pack_tiles({block.units + i * a.row, a.row, a.step}, std::min(kTile, count - i), depth,
                   packed + i / kTile * from.below);
    }
    for (size_t begin = 0; begin < columns; begin += kPanel) {
      const size_t width = std::min(kPanel, columns - begin);
      const uint32_t* panel = b + begin * total_depth + first * width;
      if (over) {
        std::memset(tail, 0, kTile * width * sizeof(uint32_t));
        std::memcpy(tail, panel + (depth - over) * width, over * width * sizeof(uint32_t));
      }
      float* out = c + m * c_row + begin;
      for (size_t n = 0; n < width; n += 2 * kTile) {
        const bool both = width - n >= 2 * kTile;
        const auto product = count > kTile ? (both ? multiply_tiles<2, 2> : multiply_tiles<2, 1>)
                                           : (both ? multiply_tiles<1, 2> : multiply_tiles<1, 1>);
        product(from, count, panel + n, width, over ? tail + n : nullptr, num_tiles, out + n, c_row, add);
      }
    }
  }
}

}  // namespace
}  // namespace fastbert
