// int8 products by the loops of linear_loop.h, which is included before, with quantize.h; compiled once per instruction
// set.
namespace fastbert {
namespace {

// Units: kPer bytes in a Unit; number(sum) as floats; store_quantized(to, x).
template <class Units, class Element>
struct QuantizedTasks {
  using Unit = typename Units::Unit;
  using Tasks = LinearTasks<Units, Element>;
  static constexpr size_t kPer = Units::kPer;

  static size_t packed_bytes(size_t in, size_t out) {
    return rounded_up(out, kLanes) * (in / kPer + Tasks::kHeader * quant_blocks(in)) * sizeof(Unit);
  }

  static void pack(const void* weight, size_t in, size_t out, void* packed) {
    constexpr size_t kRowUnits = kQuantBlock / kPer;
    auto* to = static_cast<Unit*>(packed);
    alignas(64) Unit rows[kPanel * kRowUnits + Vec::kWidth];  // transposing reads a register past the end
    for (size_t begin = 0; begin < out; begin += kPanel) {
      const size_t width = std::min(kPanel, rounded_up(out - begin, kLanes)), there = std::min(width, out - begin);
      for (size_t k = 0; k < in; k += kQuantBlock) {
        const size_t count = std::min(kQuantBlock, in - k), units = count / kPer;
        auto* header = reinterpret_cast<float*>(to);
        std::memset(rows, 0, sizeof rows);
        std::memset(header, 0, Tasks::kHeader * width * sizeof(float));
        for (size_t n = 0; n < there; ++n)
          quantize_weights(static_cast<const float*>(weight) + (begin + n) * in + k, count,
                           reinterpret_cast<int8_t*>(rows + n * units), header + n, header + width + n);
        to += Tasks::kHeader * width;
        pack_transposed<Units>(rows, units, width, to);
        to += units * width;
      }
    }
  }

  static void quantize(const QuantizeRows& of, size_t begin, size_t end) {
    const size_t blocks = quant_blocks(of.in);
    std::vector<float> ordered(of.in);
    for (size_t row = begin; row < end; ++row) {
      const Element* x = static_cast<const Element*>(of.x) + row * of.in;
      if (of.order)
        for (size_t k = 0; k < of.in; ++k) ordered[k] = to_float(x[of.order[k]]) * of.factor[k];
      else if (of.factor)
        for (size_t k = 0; k < of.in; ++k) ordered[k] = to_float(x[k]) * of.factor[k];
      for (size_t block = 0, k = 0; k < of.in; ++block, k += kQuantBlock) {
        const size_t count = std::min(kQuantBlock, of.in - k), at = row * blocks + block;
        uint8_t* to = static_cast<uint8_t*>(of.quantized) + row * of.in + k;
        if (of.factor) quantize_block(ordered.data() + k, count, to, of.scale + at, of.lowest + at);
        else quantize_block(x + k, count, to, of.scale + at, of.lowest + at);
      }
    }
  }

  template <class E>
  static void quantize_block(const E* x, size_t count, uint8_t* to, float* scale, float* lowest) {
    Vec::T low = Vec::set(to_float(x[0])), high = low, all = Vec::set(0.0f);
    for (size_t k = 0; k < count; k += Vec::kWidth) {
      const size_t left = count - k;
      const Vec::T value =
          left >= Vec::kWidth ? Vec::load(x + k) : Vec::first_of(Vec::load_first(x + k, left), left, low);
      low = Vec::min(low, value), high = Vec::max(high, value);
      all = Vec::fma(value, Vec::set(0.0f), all);
    }
    const float least = -Vec::largest(Vec::set(0.0f) - low);
    const BlockScale of = block_scale(least, Vec::largest(high), Vec::sum(all));
    *scale = of.scale, *lowest = least;
    const Vec::T shift = Vec::set(least), inverse = Vec::set(of.inverse);
    for (size_t k = 0; k < count; k += Vec::kWidth) {
      const size_t left = count - k;
      if (left >= Vec::kWidth) {
        Units::store_quantized(to + k, (Vec::load(x + k) - shift) * inverse);
      } else {
        alignas(64) uint8_t last[Vec::kWidth];
        Units::store_quantized(last, (Vec::load_first(x + k, left) - shift) * inverse);
        std::memcpy(to + k, last, left);
      }
    }
  }

  static constexpr LinearKernel kKernel{&packed_bytes, &pack, &Tasks::num_tasks, &Tasks::run, &quantize};
};

}  // namespace
}  // namespace fastbert
