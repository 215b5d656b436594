// The loops of embed.h, compiled once per instruction set: included after a vec_*.h.
namespace fastbert {
namespace {

using T = Vec::T;
constexpr size_t W = Vec::kWidth;

template <class E>
inline T take(const E* p, size_t n) {
  return n >= W ? Vec::load(p) : Vec::load_first(p, n);
}
template <class E>
inline void put(E* p, T x, size_t n) {
  if (n >= W) Vec::store(p, x);
  else Vec::store_first(p, x, n);
}

template <class E>
void gather(const GatherRows<E>& a, size_t begin, size_t end) {
  for (size_t row = begin; row < end; ++row) {
    for (size_t c = 0; c < a.width; c += W) {
      const size_t n = a.width - c;
      T sum = take(a.table[0] + static_cast<size_t>(a.index[0][row]) * a.width + c, n);
      for (size_t i = 1; i < a.tables; ++i)
        sum = sum + take(a.table[i] + static_cast<size_t>(a.index[i][row]) * a.width + c, n);
      put(a.out + row * a.width + c, sum, n);
    }
  }
}

template <class E>
void add_rows(E* out, const E* grad, const uint32_t* rows, size_t count, size_t width, float* scratch) {
  for (size_t c = 0; c < width; c += W) put(scratch + c, take(out + c, width - c), width - c);
  for (size_t i = 0; i < count; ++i) {
    const E* row = grad + rows[i] * width;
    for (size_t c = 0; c < width; c += W)
      put(scratch + c, take(scratch + c, width - c) + take(row + c, width - c), width - c);
  }
  for (size_t c = 0; c < width; c += W) put(out + c, take(scratch + c, width - c), width - c);
}

constexpr EmbedKernels kEmbedKernels{&gather<Bf16>, &gather<float>, &add_rows<Bf16>, &add_rows<float>};

}  // namespace
}  // namespace fastbert
