// The loop of dropout.h, compiled once per instruction set: included after a vec_*.h.
namespace fastbert {
namespace {

constexpr size_t kDropColumns = 512;  // at a time

template <class E>
void drop_rows(const DropoutRows<E>& a, size_t begin, size_t end) {
  const size_t drawn = (a.width + kDrawsPerBlock - 1) / kDrawsPerBlock * kDrawsPerBlock;
  const uint32_t threshold = a.dropout.threshold;
  const float inverse_keep = a.dropout.inverse_keep();
  uint16_t draws[kDropColumns];
  float factors[kDropColumns];
  for (size_t row = begin; row < end; ++row) {
    for (size_t first = 0; first < a.width; first += kDropColumns) {
      const size_t size = std::min(kDropColumns, drawn - first), columns = std::min(size, a.width - first);
      dropout_draws(a.dropout.seed, 0, 0, row, 1, drawn, first, size, draws);
      for (size_t c = 0; c < size; ++c) factors[c] = draws[c] < threshold ? 0.0f : inverse_keep;
      const E* x = a.x + row * a.width + first;
      E* out = a.out + row * a.width + first;
      for (size_t c = 0; c < columns; c += Vec::kWidth) {
        const size_t n = std::min(Vec::kWidth, columns - c);
        Vec::T z = Vec::load_first(x + c, n);
        if (a.bias) z = z + Vec::load_first(a.bias + first + c, n);
        Vec::store_first(out + c, z * Vec::load_first(factors + c, n), n);
      }
    }
  }
}

constexpr DropoutKernels kDropoutKernels{&drop_rows<Bf16>, &drop_rows<float>};

}  // namespace
}  // namespace fastbert
