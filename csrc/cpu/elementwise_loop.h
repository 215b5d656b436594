// The loops of elementwise.h, compiled once per instruction set: included after a vec_*.h and vec_math.h.
namespace fastbert {
namespace {

struct Same {
  static Vec::T apply(Vec::T x) { return x; }
};
struct Exp {
  static Vec::T apply(Vec::T x) { return exp(x); }
};

template <class Function, class In, class Out>
void map(const In* x, Out* out, size_t count) {
  size_t i = 0;
  for (; i + Vec::kWidth <= count; i += Vec::kWidth) Vec::store(out + i, Function::apply(Vec::load(x + i)));
  if (i < count) Vec::store_first(out + i, Function::apply(Vec::load_first(x + i, count - i)), count - i);
}

constexpr Elementwise kElementwise{&map<Same, float, Bf16>, &map<Same, Bf16, float>, &map<Exp, float, float>};

}  // namespace
}  // namespace fastbert
