// A row of loss.h, compiled once per instruction set: included after a vec_*.h and vec_math.h.
namespace fastbert {
namespace {

constexpr float kLog2E = 1.44269504088896341f;

template <class Element>
struct Logits {
  const Element* row;
  const float* bias;
  Vec::T load(size_t j) const {
    const Vec::T x = Vec::load(row + j);
    return bias ? x + Vec::load(bias + j) : x;
  }
  Vec::T load_first(size_t j, size_t n) const {
    const Vec::T x = Vec::load_first(row + j, n);
    return bias ? x + Vec::load_first(bias + j, n) : x;
  }
};

inline void store_one(float* p, float x) { *p = x; }
inline void store_one(Bf16* p, float x) { *p = to_bf16(x); }

template <class Element>
void cross_entropy_row(const LossArgs& args, size_t i) {
  constexpr bool kCoarse = sizeof(Element) < sizeof(float);
  const size_t count = args.vocab_size, whole = count / Vec::kWidth * Vec::kWidth, rest = count - whole;
  Element* row = static_cast<Element*>(args.logits) + i * args.columns;
  if (args.labels[i] == kNoLabel) {
    args.losses[i] = 0.0f;
    if (args.gradient) std::memset(static_cast<void*>(row), 0, args.columns * sizeof(Element));
    return;
  }
  const Logits<Element> x{row, args.bias};
  const Vec::T low = Vec::set(-std::numeric_limits<float>::infinity());
  Vec::T top = low, top2 = low;
  size_t j = 0;
  for (; j + 2 * Vec::kWidth <= whole; j += 2 * Vec::kWidth) {
    top = Vec::max(top, x.load(j));
    top2 = Vec::max(top2, x.load(j + Vec::kWidth));
  }
  for (; j < whole; j += Vec::kWidth) top = Vec::max(top, x.load(j));
  if (rest) top2 = Vec::max(top2, Vec::first_of(x.load_first(whole, rest), rest, low));
  const float highest = Vec::largest(Vec::max(top, top2));

  const Vec::T shift = Vec::set(highest), log2e = Vec::set(kLog2E);
  Vec::T sum = Vec::set(0.0f), sum2 = sum;
  j = 0;
  while (j + 2 * Vec::kWidth <= whole) {  // sums of parts: rounding errors grow with the length of one sum
    Vec::T part = Vec::set(0.0f), part2 = part;
    for (const size_t end = std::min(whole, j + 64 * Vec::kWidth); j + 2 * Vec::kWidth <= end; j += 2 * Vec::kWidth) {
      part = part + exp2_softmax<kCoarse>((x.load(j) - shift) * log2e);
      part2 = part2 + exp2_softmax<kCoarse>((x.load(j + Vec::kWidth) - shift) * log2e);
    }
    sum = sum + part;
    sum2 = sum2 + part2;
  }
  for (; j < whole; j += Vec::kWidth) sum = sum + exp2_softmax<kCoarse>((x.load(j) - shift) * log2e);
  if (rest) sum2 = sum2 + Vec::between(exp2_softmax<kCoarse>((x.load_first(whole, rest) - shift) * log2e), 0, 0, rest);
  const float total = Vec::sum(sum + sum2);

  const auto label = static_cast<size_t>(args.labels[i]);
  const float weight = args.weights ? args.weights[i] : 1.0f;
  const float log_p = to_float(row[label]) + (args.bias ? args.bias[label] : 0.0f) - highest - std::log(total);
  args.losses[i] = -weight * log_p;
  if (!args.gradient) return;

  const float factor = args.factor * weight;
  const Vec::T scale = Vec::set(factor / total);
  for (j = 0; j < whole; j += Vec::kWidth)
    Vec::store(row + j, exp2_softmax<kCoarse>((x.load(j) - shift) * log2e) * scale);
  if (rest)
    Vec::store_first(row + whole, exp2_softmax<kCoarse>((x.load_first(whole, rest) - shift) * log2e) * scale, rest);
  store_one(row + label, factor * std::expm1(log_p));
  std::memset(static_cast<void*>(row + count), 0, (args.columns - count) * sizeof(Element));
}

constexpr LossKernels kLossKernels{&cross_entropy_row<float>, &cross_entropy_row<Bf16>};

}  // namespace
}  // namespace fastbert
