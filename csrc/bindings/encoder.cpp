// The whole encoder for Python (used by fastbert/ops/cpu/frozen_encoder.py only). Tensors come as addresses.
#include "bindings/bindings.h"

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/encoder.h"

namespace {

using Address = uintptr_t;
// weight, its rows and columns, bias or 0, order and factors for int8 or 0
using Matrix = std::tuple<Address, size_t, size_t, Address, Address, Address>;
using Norm = std::array<Address, 2>;  // weight, bias or 0
// qkv, out, up, down; the two norms; window, gated, tanh
using Layer = std::tuple<std::array<Matrix, 4>, std::optional<Norm>, Norm, int64_t, bool, bool>;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

fastbert::NormOf norm_of(const Norm& norm) { return {at<const float>(norm[0]), at<const float>(norm[1])}; }

fastbert::MatrixOf matrix_of(const Matrix& matrix) {
  const auto [weight, out, in, bias, order, factor] = matrix;
  return {at<const void>(weight), out, in, at<const float>(bias), at<const int32_t>(order), at<const float>(factor)};
}

fastbert::Products products_of(const std::string& precision) {
  if (precision == "bf16") return fastbert::Products::kBf16;
  return precision == "int8" ? fastbert::Products::kInt8 : fastbert::Products::kFloats;
}

std::unique_ptr<fastbert::Encoder> make_encoder(const std::vector<Layer>& layers, std::optional<Norm> last,
                                                size_t width, size_t num_heads, float eps,
                                                const std::string& precision) {
  std::vector<fastbert::NormOf> norms(layers.size());
  std::vector<fastbert::LayerOf> all;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& [matrices, first, second, window, gated, tanh] = layers[i];
    if (first) norms[i] = norm_of(*first);
    all.push_back({matrix_of(matrices[0]), matrix_of(matrices[1]), matrix_of(matrices[2]), matrix_of(matrices[3]),
                   first ? &norms[i] : nullptr, norm_of(second), window, gated, tanh});
  }
  const fastbert::NormOf norm = last ? norm_of(*last) : fastbert::NormOf{};
  py::gil_scoped_release release;
  return std::make_unique<fastbert::Encoder>(all, last ? &norm : nullptr, width, num_heads, eps,
                                             products_of(precision));
}

// x (num_tokens, D), overwritten. cu_seqlens: num_sequences + 1 of them. angles: addresses of cos and sin of each
// layer, or zeros. rows: num_rows of them, or address 0: all. largest: see encoder.h, or 0.
void forward(const fastbert::Encoder& encoder, Address x, size_t num_tokens, Address cu_seqlens, size_t num_sequences,
             const std::vector<std::array<Address, 2>>& angles, Address rows, size_t num_rows, int threads,
             Address largest) {
  const auto* bounds = at<const int32_t>(cu_seqlens);
  bool good = bounds[0] == 0 && bounds[num_sequences] == static_cast<int64_t>(num_tokens);
  std::vector<fastbert::AttentionSequence> sequences(num_sequences);
  for (size_t b = 0; good && b < num_sequences; ++b) {
    const int64_t length = int64_t{bounds[b + 1]} - bounds[b];
    good = length >= 0;
    sequences[b] = {static_cast<size_t>(bounds[b]), static_cast<size_t>(length), static_cast<size_t>(length)};
  }
  if (!good)
    throw py::value_error("cu_seqlens must begin with 0, never fall, and end with the number of tokens, " +
                          std::to_string(num_tokens));
  const auto* wanted = at<const int64_t>(rows);
  if (num_rows > num_tokens) throw py::value_error("more rows than tokens");
  for (size_t i = 0; wanted && i < num_rows; ++i)
    if (wanted[i] < 0 || wanted[i] >= static_cast<int64_t>(num_tokens)) throw py::index_error("rows out of range");
  std::vector<fastbert::Encoder::Rotary> rotary;
  for (const auto& [cos, sin] : angles) rotary.push_back({at<const float>(cos), at<const float>(sin)});
  py::gil_scoped_release release;
  encoder.forward(at<void>(x), num_tokens, sequences, rotary, wanted, num_rows, threads, at<float>(largest));
}

}  // namespace

void bind_encoder(py::module_& m) {
  py::class_<fastbert::Encoder>(m, "Encoder")
      .def(py::init(&make_encoder), py::arg("layers"), py::arg("last"), py::arg("width"), py::arg("num_heads"),
           py::arg("eps"), py::arg("precision"))
      .def("forward", &forward, py::arg("x"), py::arg("num_tokens"), py::arg("cu_seqlens"), py::arg("num_sequences"),
           py::arg("angles"), py::arg("rows"), py::arg("num_rows"), py::arg("threads"), py::arg("largest") = 0)
      .def_property_readonly("num_columns", &fastbert::Encoder::num_columns)
      .def_property_readonly("bf16", &fastbert::Encoder::bf16)
      .def_static(
          "runs", [](const std::string& precision) { return fastbert::Encoder::runs(products_of(precision)); },
          py::arg("precision"));
}
