// Functions on Vec, the same text for every instruction set. Include after one vec_*.h, before FASTBERT_VEC_END.
namespace fastbert {
namespace {

// e^x, error below 2 units in the last place for x in [-87.3, 88]; 0 below -87.34 (no denormal results), also for -inf.
// x > 88 is not meant for it: softmax has none.
// 2^n · e^r with |r| <= ln 2 / 2, e^r by its minimax polynomial of degree 6.
inline Vec::T exp(Vec::T x) {
  x = Vec::max(Vec::set(-200.0f), x);  // -inf would make n · ln 2 a NaN; a NaN stays one, being second
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

// 2^x for x <= 0, never below 2^-126: what softmax needs and no more. Relative error of the polynomial below 2e-7, with
// kCoarse (results to be rounded to bf16) 3e-6; 2^0 is 1. For x > 0 anything, without a trap.
template <bool kCoarse>
Vec::T exp2_softmax(Vec::T x) {
  x = Vec::max(Vec::set(-126.0f), x);  // a NaN stays one, being second
  const Vec::T n = Vec::round(x), r = x - n;
  Vec::T p;
  if constexpr (kCoarse) {
    p = Vec::set(0.00958285304f);
    p = Vec::fma(p, r, Vec::set(0.0559064247f));
    p = Vec::fma(p, r, Vec::set(0.240240986f));
    p = Vec::fma(p, r, Vec::set(0.693124193f));
    p = Vec::fma(p, r, Vec::set(1.0f));
  } else {
    p = Vec::set(0.000153533618f);
    p = Vec::fma(p, r, Vec::set(0.00133988744f));
    p = Vec::fma(p, r, Vec::set(0.00961843736f));
    p = Vec::fma(p, r, Vec::set(0.0555033247f));
    p = Vec::fma(p, r, Vec::set(0.240226479f));
    p = Vec::fma(p, r, Vec::set(0.693147203f));
    p = Vec::fma(p, r, Vec::set(1.0f));
  }
  return Vec::scale_in_range(p, n);
}

}  // namespace
}  // namespace fastbert
