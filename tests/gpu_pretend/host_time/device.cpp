// Operations of the device that computes nothing: PyTorch's dispatcher, autograd and autocast do all they do before a
// kernel is launched, and the result is memory that nobody may read. Addresses are made up: reading one is a crash.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

namespace {
using namespace at;

struct MadeUp final : Allocator {
  uintptr_t next = uintptr_t{1} << 40;
  DataPtr allocate(size_t bytes) override {
    void* address = reinterpret_cast<void*>(next);
    next += (bytes + 511) / 512 * 512 + 512;
    return {address, address, +[](void*) {}, Device(DeviceType::CUDA, 0)};
  }
  void copy_data(void*, const void*, size_t) const override {}
} addresses;

constexpr DispatchKeySet kKeys(DispatchKey::CUDA);

Tensor made(IntArrayRef size, ScalarType type) {
  return at::detail::empty_generic(size, &addresses, kKeys, type, std::nullopt);
}

Tensor new_empty(SymIntArrayRef size, std::optional<ScalarType> type, std::optional<Layout>, std::optional<Device>,
             std::optional<bool>, std::optional<MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &addresses, kKeys,
                               type.value_or(ScalarType::Float), format);
}

Tensor new_strided(SymIntArrayRef size, SymIntArrayRef stride, std::optional<ScalarType> type, std::optional<Layout>,
                     std::optional<Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &addresses, kKeys,
                                       type.value_or(ScalarType::Float));
}

Tensor matrix_product(const Tensor& a, const Tensor& b) {
  TORCH_CHECK(a.size(1) == b.size(0) && a.scalar_type() == b.scalar_type(), "mm of ", a.sizes(), a.scalar_type(),
              " and ", b.sizes(), b.scalar_type());
  return made({a.size(0), b.size(1)}, a.scalar_type());
}

Tensor widened_product(const Tensor& a, const Tensor& b, ScalarType type) {
  return made({a.size(0), b.size(1)}, type);
}

Tensor with_bias(const Tensor&, const Tensor& a, const Tensor& b, const Scalar&, const Scalar&) {
  return matrix_product(a, b);
}

Tensor& same(Tensor& self) { return self; }
Tensor& filled(Tensor& self, const Scalar&) { return self; }
Tensor& drawn(Tensor& self, int64_t, std::optional<int64_t>, std::optional<Generator>) { return self; }
Tensor& copied(Tensor& self, const Tensor&, bool) { return self; }

Tensor elementwise(const Tensor& a, const Tensor& b, const Scalar&) {
  return made(infer_size(a.sizes(), b.sizes()), result_type(a, b));
}

Tensor& into(const Tensor&, const Tensor&, const Scalar&, Tensor& out) { return out; }
Tensor& increased(Tensor& self, const Tensor&, const Scalar&) { return self; }

Tensor scaled(const Tensor& a, const Tensor& b) { return elementwise(a, b, 1); }

Tensor summed(const Tensor& x, OptionalIntArrayRef dims, bool keep, std::optional<ScalarType> type) {
  std::vector<bool> over(x.dim(), !dims || dims->empty());
  if (dims) for (auto d : *dims) over[maybe_wrap_dim(d, x.dim())] = true;
  std::vector<int64_t> size;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (!over[d]) size.push_back(x.size(d));
    else if (keep) size.push_back(1);
  }
  return made(size, type.value_or(x.scalar_type()));
}

Tensor rows_of(const Tensor& x, int64_t dim, const Tensor& index) {
  auto size = x.sizes().vec();
  size[dim] = index.numel();
  return made(size, x.scalar_type());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", new_empty);
  m.impl("empty_strided", new_strided);
  m.impl("as_strided", TORCH_FN(native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(native::view));
  m.impl("_reshape_alias", TORCH_FN(native::_reshape_alias));
  m.impl("mm", matrix_product);
  m.impl("mm.dtype", widened_product);
  m.impl("addmm", with_bias);
  m.impl("zero_", same);
  m.impl("fill_.Scalar", filled);
  m.impl("random_.from", drawn);
  m.impl("copy_", copied);
  m.impl("add.Tensor", elementwise);
  m.impl("add.out", into);
  m.impl("add_.Tensor", increased);
  m.impl("mul.Tensor", scaled);
  m.impl("sum.dim_IntList", summed);
  m.impl("index_select", rows_of);
}
}  // namespace
