// Pairs of bf16 as the units of panels.h, in NEON's registers. Included by panels.h. Memory is reached as in
// vec_neon.h.
namespace fastbert {
namespace {

struct Pairs {
  using Scope = NoScope;
  static constexpr bool kTiled = false;
  static constexpr size_t kRowBlock = 2 * kTileRows;
  static constexpr size_t kPer = 2;
  using Unit = uint32_t;
  static Vec::T broadcast(const Unit* p) { return vreinterpretq_f32_u32(vdupq_n_u32(Vec::read<uint32_t>(p))); }
  static Vec::T dot(Vec::T sum, Vec::T a, Vec::T b) {
    return vbfdotq_f32(sum, vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b));
  }
  static uint16x4_t narrow(Vec::T x) { return vreinterpret_u16_bf16(vcvt_bf16_f32(x)); }
  static Vec::T load(const Unit* row, size_t j) { return Vec::load(reinterpret_cast<const Bf16*>(row) + j); }
  static void store(Unit* row, size_t j, Vec::T x) { Vec::write(reinterpret_cast<Bf16*>(row) + j, narrow(x)); }
  static void store_first(Unit* row, size_t j, Vec::T x, size_t n) {
    const uint16x4_t half = narrow(x);
    std::memcpy(reinterpret_cast<Bf16*>(row) + j, &half, std::min(n, Vec::kWidth) * sizeof(Bf16));
  }
  // out[c] = (x[c], y[c]): two rows of a matrix as one row of units
  static void store_pair(Unit* out, Vec::T x, Vec::T y) { Vec::write(out, joined(narrow(x), narrow(y))); }
  static void interleave(const Unit* rows, size_t row_units, size_t column, Unit* out) {
    const auto* even = reinterpret_cast<const Bf16*>(rows) + column;
    const auto* odd = reinterpret_cast<const Bf16*>(rows + row_units) + column;
    Vec::write(out, joined(Vec::read<uint16x4_t>(even), Vec::read<uint16x4_t>(odd)));
  }
  static uint16x8_t joined(uint16x4_t even, uint16x4_t odd) {
    return vcombine_u16(vzip1_u16(even, odd), vzip2_u16(even, odd));
  }

  // Zeros where the draw lies below the threshold: a row's values, size a multiple of kLanes
  static void zero_dropped(Unit* row, size_t size, const uint16_t* draws, uint32_t threshold) {
    for (size_t j = 0; j < size; j += 8) keep(row + j / 2, Vec::read<uint16x8_t>(draws + j), threshold);
  }
  // the same of a row of units made of two rows, whose draws are `stride` apart
  static void zero_dropped_pair(Unit* row, size_t size, const uint16_t* draws, size_t stride, uint32_t threshold) {
    for (size_t j = 0; j < size; j += 4)
      keep(row + j, joined(Vec::read<uint16x4_t>(draws + j), Vec::read<uint16x4_t>(draws + stride + j)), threshold);
  }

 private:
  static void keep(Unit* at, uint16x8_t draws, uint32_t threshold) {
    const uint16x8_t kept = vcgeq_u16(draws, vdupq_n_u16(static_cast<uint16_t>(threshold)));
    Vec::write(at, vandq_u16(Vec::read<uint16x8_t>(at), kept));
  }
};

}  // namespace
}  // namespace fastbert
