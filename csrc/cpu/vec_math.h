// Functions on Vec, the same text for every instruction set. Include after one vec_*.h, before FASTBERT_VEC_END.
namespace fastbert {
namespace {

// e^x, error below 2 units in the last place for x in [-87.3, 88]; 0 below -87.34 (no denormal results), also for -inf.
// x > 88 is not meant for it: softmax has none.
// 2^n · e^r with |r| <= ln 2 / 2, e^r by its minimax polynomial of degree 6.
inline Vec::T exp(Vec::T x) {
  x = Vec::max(x, Vec::set(-200.0f));  // -inf would make n · ln 2 a NaN
  const Vec::T n = Vec::round(x * Vec::set(1.44269504088896341f));
  Vec::T r = Vec::fma(n, Vec::set(-0.693359375f), x);  // ln 2 in two parts: the first product is exact
  r = Vec::fma(n, Vec::set(2.12194440e-4f), r);
  Vec::T p = Vec::set(1.9875691500e-4f);
  p = Vec::fma(p, r, Vec::set(1.3981999507e-3f));
  p = Vec::fma(p, r, Vec::set(8.3334519073e-3f));
  p = Vec::fma(p, r, Vec::set(4.1665795894e-2f));
  p = Vec::fma(p, r, Vec::set(1.6666665459e-1f));
  p = Vec::fma(p, r, Vec::set(5.0000001201e-1f));
  p = Vec::fma(p, r * r, r + Vec::set(1.0f));
  return Vec::scale_by_power(p, n);
}

}  // namespace
}  // namespace fastbert
