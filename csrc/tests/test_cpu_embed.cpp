#include "cpu/embed.h"

#include <doctest/doctest.h>

#include <vector>

#include "twins.h"

using namespace fastbert;

namespace {

auto gather(const EmbedKernels& k, float) { return k.gather_f32; }
auto gather(const EmbedKernels& k, Bf16) { return k.gather_bf16; }
auto add_rows(const EmbedKernels& k, float) { return k.add_rows_f32; }
auto add_rows(const EmbedKernels& k, Bf16) { return k.add_rows_bf16; }

template <class E>
std::vector<E> gathered(const EmbedKernels& kernels, size_t width, size_t tables) {
  const std::vector<int64_t> index[] = {{4, 0, 4, 2}, {1, 3, 3, 0}, {0, 1, 0, 1}};
  GatherRows<E> args{width, tables, {}, {}, nullptr};
  std::vector<E> table[kMaxTables], out = untouched<E>(4 * width);
  for (size_t i = 0; i < tables; ++i) {
    table[i] = numbers<E>(5 * width, static_cast<uint32_t>(i));
    args.table[i] = table[i].data(), args.index[i] = index[i].data();
  }
  args.out = out.data();
  gather(kernels, E{})(args, 0, 4);
  return out;
}

template <class E>
std::vector<E> added(const EmbedKernels& kernels, size_t width) {
  const auto grad = numbers<E>(5 * width, 8);
  const std::vector<uint32_t> rows{4, 1, 3};
  auto out = untouched<E>(width);
  std::vector<float> scratch(width);
  add_rows(kernels, E{})(out.data(), grad.data(), rows.data(), rows.size(), width, scratch.data());
  return out;
}

template <class E>
void compare(Isa isa) {
  const EmbedKernels &kernels = embed_kernels(isa), &plain = embed_kernels_scalar;
  for (const size_t width : {1, 3, 4, 7, 8, 15, 16, 17, 33, 130}) {
    CAPTURE(width);
    // the same additions in the same order: the same bits
    for (const size_t tables : {1, 2, 3})
      CHECK(difference(gathered<E>(kernels, width, tables), gathered<E>(plain, width, tables)) == 0.0);
    CHECK(difference(added<E>(kernels, width), added<E>(plain, width)) == 0.0);
  }
}

}  // namespace

TEST_CASE("embed: gathered rows and added gradients of every instruction set are those of the plain loops") {
  for (const auto isa : vector_isas()) {
    CAPTURE(isa_name(isa));
    compare<float>(isa);
    compare<Bf16>(isa);
  }
}
