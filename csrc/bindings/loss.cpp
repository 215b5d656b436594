// Cross-entropy for Python (used by fastbert/ops/cpu/loss.py only). Tensors come as addresses.
#include "bindings/bindings.h"

#include <string>

#include "cpu/loss.h"

namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void run_cross_entropy(bool bf16, uintptr_t logits, uintptr_t bias, uintptr_t labels, uintptr_t weights,
                       uintptr_t losses, size_t rows, size_t columns, size_t vocab_size, bool gradient, float factor,
                       int threads) {
  fastbert::LossArgs args;
  args.logits = at<void>(logits), args.bias = at<const float>(bias), args.labels = at<const int64_t>(labels);
  args.weights = at<const float>(weights), args.losses = at<float>(losses);
  args.rows = rows, args.columns = columns, args.vocab_size = vocab_size;
  args.gradient = gradient, args.factor = factor;
  if (vocab_size > columns) throw py::value_error("vocab_size exceeds the columns of the logits");
  for (size_t i = 0; i < rows; ++i) {
    const int64_t label = args.labels[i];
    if (label != fastbert::kNoLabel && (label < 0 || static_cast<size_t>(label) >= vocab_size))
      throw py::index_error("label " + std::to_string(label) + " of row " + std::to_string(i) + ": expected 0 to " +
                            std::to_string(vocab_size - 1) + ", or -100");
  }
  py::gil_scoped_release release;
  fastbert::cross_entropy(args, bf16, threads);
}

}  // namespace

void bind_loss(py::module_& m) {
  m.def("cpu_cross_entropy", &run_cross_entropy, py::arg("bf16"), py::arg("logits"), py::arg("bias"), py::arg("labels"),
        py::arg("weights"), py::arg("losses"), py::arg("rows"), py::arg("columns"), py::arg("vocab_size"),
        py::arg("gradient"), py::arg("factor"), py::arg("threads"));
}
