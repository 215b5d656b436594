// The loops of adamw.h, compiled once per instruction set: included after a vec_*.h.
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
void adamw_step(const AdamwStep& a, const E* grad, float* weights, float* mean, float* square, Bf16* image,
                size_t count) {
  const T beta1 = Vec::set(a.beta1), beta2 = Vec::set(a.beta2), one = Vec::set(1.0f);
  for (size_t i = 0; i < count; i += W) {
    const size_t n = count - i;
    const T g = take(grad + i, n) * Vec::set(a.grad_scale);
    T m = take(mean + i, n), v = take(square + i, n), w = take(weights + i, n);
    m = Vec::fma(g - m, one - beta1, m);
    v = Vec::fma(v, beta2, g * g * (one - beta2));
    const T divisor = Vec::fma(Vec::sqrt(v), Vec::set(a.second), Vec::set(a.eps));
    w = w * Vec::set(a.kept) - Vec::set(a.step_size) * m / divisor;
    put(mean + i, m, n);
    put(square + i, v, n);
    put(weights + i, w, n);
    if (image) put(image + i, w, n);
  }
}

template <class E>
float sum_of_squares(const E* x, size_t count) {
  T first = Vec::set(0.0f), second = first;  // two, for the additions wait for each other
  size_t i = 0;
  for (; i + 2 * W <= count; i += 2 * W) {
    const T a = Vec::load(x + i), b = Vec::load(x + i + W);
    first = Vec::fma(a, a, first);
    second = Vec::fma(b, b, second);
  }
  for (; i < count; i += W) {
    const T a = take(x + i, count - i);
    first = Vec::fma(a, a, first);
  }
  return Vec::sum(first + second);
}

constexpr AdamwKernels kAdamwKernels{&adamw_step<Bf16>, &adamw_step<float>, &sum_of_squares<Bf16>,
                                     &sum_of_squares<float>};

}  // namespace
}  // namespace fastbert
