// The loops of rows.h, compiled once per instruction set: included after a vec_*.h and vec_math.h.
namespace fastbert {
namespace {

using T = Vec::T;
constexpr size_t W = Vec::kWidth;

// A whole register, or the first n lanes of the last one (the others 0).
template <class E>
inline T take(const E* p, size_t n) {
  return n >= W ? Vec::load(p) : Vec::load_first(p, n);
}
template <class E>
inline void put(E* p, T x, size_t n) {
  if (n >= W) Vec::store(p, x);
  else Vec::store_first(p, x, n);
}
inline void add_to(float* p, T x, size_t n) { put(p, take(p, n) + x, n); }

// ---- LayerNorm ----
template <class E>
void norm_forward(const LayerNormForward<E>& a, size_t begin, size_t end, float* scratch) {
  const size_t width = a.width;
  const float each = 1.0f / static_cast<float>(width);
  for (size_t row = begin; row < end; ++row) {
    const size_t at = row * width;
    T sum = Vec::set(0.0f);
    for (size_t c = 0; c < width; c += W) {
      const size_t n = width - c;
      T z = take(a.x + at + c, n);
      if (a.x_bias) z = z + take(a.x_bias + c, n);
      if (a.residual) z = z + take(a.residual + at + c, n);
      if (a.total) put(a.total + at + c, z, n);
      put(scratch + c, z, n);
      sum = sum + z;
    }
    const float near_mean = Vec::sum(sum) * each;
    // deviations from a mean that is nearly right, and their sum, which sets it right
    T squares = Vec::set(0.0f);
    sum = squares;
    size_t c = 0;
    for (; W > 1 && c + W <= width; c += W) {  // the plain loops, one long chain of additions, take the doubles below
      const T d = Vec::load(scratch + c) - Vec::set(near_mean);
      squares = Vec::fma(d, d, squares);
      sum = sum + d;
    }
    double off = Vec::sum(sum), variance = Vec::sum(squares);
    for (; c < width; ++c) {
      const double d = scratch[c] - near_mean;
      off += d, variance += d * d;
    }
    off /= static_cast<double>(width);
    variance = variance / static_cast<double>(width) - off * off;
    const float mean = static_cast<float>(near_mean + off);
    const float rstd = static_cast<float>(1.0 / std::sqrt(variance + a.eps));
    for (c = 0; c < width; c += W) {
      const size_t n = width - c;
      const T normed = (take(scratch + c, n) - Vec::set(mean)) * Vec::set(rstd);
      const T bias = a.bias ? take(a.bias + c, n) : Vec::set(0.0f);
      put(a.out + at + c, Vec::fma(normed, take(a.weight + c, n), bias), n);
    }
    if (a.mean) a.mean[row] = mean;
    if (a.rstd) a.rstd[row] = rstd;
  }
}

template <class E>
void norm_backward(const LayerNormBackward<E>& a, size_t begin, size_t end, float* sums) {
  const size_t width = a.width;
  const float size = static_cast<float>(width);
  float *sum_weight = sums, *sum_bias = sums + width, *sum_total = sums + 2 * width;
  std::memset(sums, 0, 3 * width * sizeof(float));
  for (size_t row = begin; row < end; ++row) {
    const size_t at = row * width;
    const T mean = Vec::set(a.mean[row]), rstd = Vec::set(a.rstd[row]);
    T sum = Vec::set(0.0f), dot = Vec::set(0.0f);
    for (size_t c = 0; c < width; c += W) {
      const size_t n = width - c;
      const T grad = take(a.grad_out + at + c, n);
      T normed = (take(a.total + at + c, n) - mean) * rstd;
      const T weighted = grad * take(a.weight + c, n);  // 0 in the lanes past the end
      sum = sum + weighted;
      dot = Vec::fma(weighted, normed, dot);
      add_to(sum_weight + c, grad * normed, n);
      add_to(sum_bias + c, grad, n);
    }
    const T mean_sum = Vec::set(Vec::sum(sum) / size), mean_dot = Vec::set(Vec::sum(dot) / size);
    for (size_t c = 0; c < width; c += W) {
      const size_t n = width - c;
      const T weighted = take(a.grad_out + at + c, n) * take(a.weight + c, n);
      const T normed = (take(a.total + at + c, n) - mean) * rstd;
      T grad = (weighted - mean_sum - normed * mean_dot) * rstd;
      if (a.grad_sum) grad = grad + take(a.grad_sum + at + c, n);
      put(a.grad_total + at + c, grad, n);
      add_to(sum_total + c, grad, n);
    }
  }
}

// ---- GELU ----
struct Gelu {
  T value, slope;
};

// x Φ(x) and its derivative Φ(x) + x φ(x). erfc(z) = e^(−z²) · polynomial of t = 1 / (1 + c z) for z >= 0: error 3e-8,
// or with kCoarse (results to be rounded to bf16) 3e-5 (Abramowitz & Stegun, Handbook of Mathematical
// Functions, 7.1.25).
template <bool kCoarse>
inline Gelu gelu_exact(T x) {
  const T size = Vec::min(Vec::set(40.0f), Vec::max(x, Vec::set(0.0f) - x));
  const T z = size * Vec::set(0.70710678118654752f);
  const T density = exp2_softmax<kCoarse>(size * size * Vec::set(-0.72134752044448170f));
  T t, p;
  if constexpr (kCoarse) {
    t = Vec::reciprocal(Vec::fma(z, Vec::set(0.47047f), Vec::set(1.0f)));
    p = Vec::fma(Vec::set(0.7478556f), t, Vec::set(-0.0958798f));
    p = Vec::fma(p, t, Vec::set(0.3480242f));
  } else {
    t = Vec::set(1.0f) / Vec::fma(z, Vec::set(0.4f), Vec::set(1.0f));
    p = Vec::fma(Vec::set(-0.20033619f), t, Vec::set(0.70947442f));
    p = Vec::fma(p, t, Vec::set(-0.37146145f));
    p = Vec::fma(p, t, Vec::set(0.46874014f));
    p = Vec::fma(p, t, Vec::set(0.16162845f));
    p = Vec::fma(p, t, Vec::set(0.23195459f));
  }
  const T tail = Vec::set(0.5f) * density * (p * t);  // Φ(−|x|)
  const T value = Vec::max(x, Vec::set(0.0f)) - size * tail;
  // 0 below zero, 1 above; around it any number in between does, for tail is 1/2 there
  const T above = Vec::min(Vec::max(x * Vec::set(1e38f), Vec::set(0.0f)), Vec::set(1.0f));
  const T cdf = Vec::fma(Vec::set(1.0f) - above - above, tail, above);
  return {value, Vec::fma(x * Vec::set(0.39894228040143268f), density, cdf)};
}

// x σ(2u), u = √(2/π) (x + 0.044715 x³): what 0.5 x (1 + tanh u) is.
template <bool kCoarse>
inline Gelu gelu_tanh(T x) {
  const T square = x * x;
  const T twice = Vec::set(1.5957691216057308f) * x * Vec::fma(Vec::set(0.044715f), square, Vec::set(1.0f));
  const T power = exp(Vec::min(Vec::set(0.0f) - twice, Vec::set(87.0f)));
  const T divisor = Vec::set(1.0f) + power;
  const T sigmoid = kCoarse ? Vec::reciprocal(divisor) : Vec::set(1.0f) / divisor;
  const T twice_slope = Vec::set(1.5957691216057308f) * Vec::fma(Vec::set(0.134145f), square, Vec::set(1.0f));
  return {x * sigmoid, Vec::fma(x * sigmoid, sigmoid * power * twice_slope, sigmoid)};
}

template <bool kTanh, class E>
inline Gelu gelu_of(T x) {
  constexpr bool kCoarse = sizeof(E) == sizeof(Bf16);
  return kTanh ? gelu_tanh<kCoarse>(x) : gelu_exact<kCoarse>(x);
}

inline T biased(T x, const float* bias, size_t c, size_t n) { return bias ? x + take(bias + c, n) : x; }

template <class E, bool kTanh>
void gelu_forward_of(const GeluForward<E>& a, size_t begin, size_t end) {
  const size_t width = a.width, x_width = a.gated ? 2 * width : width;
  for (size_t row = begin; row < end; ++row) {
    const E* x = a.x + row * x_width;
    E* out = a.out + row * width;
    for (size_t c = 0; c < width; c += W) {
      const size_t n = width - c;
      T y = gelu_of<kTanh, E>(biased(take(x + c, n), a.bias, c, n)).value;
      if (a.gated) y = y * biased(take(x + width + c, n), a.bias, width + c, n);
      put(out + c, y, n);
    }
  }
}

template <class E>
void gelu_forward(const GeluForward<E>& a, size_t begin, size_t end) {
  if (a.tanh) gelu_forward_of<E, true>(a, begin, end);
  else gelu_forward_of<E, false>(a, begin, end);
}

template <class E, bool kTanh>
void gelu_backward_of(const GeluBackward<E>& a, size_t begin, size_t end, float* sums) {
  const size_t width = a.width, x_width = a.gated ? 2 * width : width;
  std::memset(sums, 0, x_width * sizeof(float));
  for (size_t row = begin; row < end; ++row) {
    const E* x = a.x + row * x_width;
    const E* grad_out = a.grad_out + row * width;
    E* grad_x = a.grad_x + row * x_width;
    for (size_t c = 0; c < width; c += W) {
      const size_t n = width - c;
      T grad = take(grad_out + c, n);
      const Gelu gelu = gelu_of<kTanh, E>(biased(take(x + c, n), a.bias, c, n));
      if (a.gated) {
        const T of_value = grad * gelu.value;
        grad = grad * biased(take(x + width + c, n), a.bias, width + c, n);
        put(grad_x + width + c, of_value, n);
        add_to(sums + width + c, of_value, n);
      }
      grad = grad * gelu.slope;
      put(grad_x + c, grad, n);
      add_to(sums + c, grad, n);
    }
  }
}

template <class E>
void gelu_backward(const GeluBackward<E>& a, size_t begin, size_t end, float* sums) {
  if (a.tanh) gelu_backward_of<E, true>(a, begin, end, sums);
  else gelu_backward_of<E, false>(a, begin, end, sums);
}

// ---- sums ----
template <class E>
void sum_rows(const E* x, size_t width, size_t begin, size_t end, float* sums) {
  std::memset(sums, 0, width * sizeof(float));
  for (size_t row = begin; row < end; ++row)
    for (size_t c = 0; c < width; c += W) add_to(sums + c, take(x + row * width + c, width - c), width - c);
}

constexpr RowKernels kRowKernels{
    &norm_forward<Bf16>,  &norm_forward<float>, &norm_backward<Bf16>,  &norm_backward<float>, &gelu_forward<Bf16>,
    &gelu_forward<float>, &gelu_backward<Bf16>, &gelu_backward<float>, &sum_rows<Bf16>,       &sum_rows<float>,
};

}  // namespace
}  // namespace fastbert
