// Attention for Python (used by fastbert/ops/cpu/attention.py only). Tensors come as addresses.
#include "bindings/bindings.h"

#include <array>
#include <string>
#include <vector>

#include "cpu/attention.h"

namespace {

using View = std::array<int64_t, 3>;  // address, token stride, head stride

fastbert::Heads heads_of(const View& view) {
  return {reinterpret_cast<void*>(static_cast<uintptr_t>(view[0])), view[1], view[2]};
}

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// inputs, outputs: forward (q, k, v) and (out); backward (q, k, v, d_out) and (dq, dk, dv).
// cu_seqlens: B + 1 of them; keys: B of them, or zero: all. angles: addresses of cos and sin, or zeros.
void run_attention(bool backward, bool bf16, const std::vector<View>& inputs, const std::vector<View>& outputs,
                   uintptr_t lse, std::array<uintptr_t, 2> angles, uintptr_t cu_seqlens, uintptr_t keys,
                   std::array<size_t, 4> sizes, int64_t window, float scale, int threads, float dropout_p,
                   uint64_t seed) {
  const auto [num_sequences, num_heads, num_tokens, head_dim] = sizes;
  if (inputs.size() != (backward ? 4u : 3u) || outputs.size() != (backward ? 3u : 1u) || head_dim % 16 || !head_dim ||
      head_dim > fastbert::kMaxHeadDim)
    throw py::value_error("attention: the arguments do not fit together");
  fastbert::AttentionArgs args;
  args.q = heads_of(inputs[0]), args.k = heads_of(inputs[1]), args.v = heads_of(inputs[2]);
  if (backward) {
    args.d_out = heads_of(inputs[3]);
    args.dq = heads_of(outputs[0]), args.dk = heads_of(outputs[1]), args.dv = heads_of(outputs[2]);
  } else {
    args.out = heads_of(outputs[0]);
  }
  args.lse = at<float>(lse), args.cos = at<const float>(angles[0]), args.sin = at<const float>(angles[1]);
  const auto *bounds = at<const int32_t>(cu_seqlens), *seen = at<const int32_t>(keys);
  std::vector<fastbert::AttentionSequence> sequences(num_sequences);
  bool good = bounds[0] == 0 && bounds[num_sequences] == static_cast<int64_t>(num_tokens);
  for (size_t b = 0; good && b < num_sequences; ++b) {
    const int64_t rows = int64_t{bounds[b + 1]} - bounds[b], num_keys = seen ? seen[b] : rows;
    good = rows >= 0 && 0 <= num_keys && num_keys <= rows;
    sequences[b] = {static_cast<size_t>(bounds[b]), static_cast<size_t>(rows), static_cast<size_t>(num_keys)};
  }
  if (!good)
    throw py::value_error("cu_seqlens must begin with 0, never fall, and end with the number of tokens, " +
                          std::to_string(num_tokens));
  args.sequences = sequences.data();
  args.num_sequences = num_sequences, args.num_heads = num_heads, args.num_tokens = num_tokens;
  args.head_dim = head_dim, args.window = window, args.scale = scale;
  args.dropout = {seed, fastbert::dropout_threshold(dropout_p)};
  py::gil_scoped_release release;
  backward ? fastbert::attention_backward(args, bf16, threads) : fastbert::attention_forward(args, bf16, threads);
}

}  // namespace

void bind_attention(py::module_& m) {
  m.def("cpu_attention", &run_attention, py::arg("backward"), py::arg("bf16"), py::arg("inputs"), py::arg("outputs"),
        py::arg("lse"), py::arg("angles"), py::arg("cu_seqlens"), py::arg("keys"), py::arg("sizes"), py::arg("window"),
        py::arg("scale"), py::arg("threads"), py::arg("dropout_p") = 0.0f, py::arg("seed") = 0);
}
