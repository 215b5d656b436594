// The compute kernels' ground for Python (used by fastbert/ops/cpu only): instruction sets, threads, conversions.
// Tensors come as addresses: torch is not linked. fastbert/ops/cpu checks shapes, strides and dtypes before.
#include "bindings/bindings.h"

#include <climits>
#include <string>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "cpu/elementwise.h"
#include "cpu/isa.h"
#include "cpu/team.h"

namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

constexpr size_t kElementwisePart = 16384;  // elements of a task: 64 KB of floats

// which: 0 float → bf16, 1 bf16 → float, 2 exp
void run_elementwise(int which, uintptr_t x, uintptr_t out, size_t count, int threads) {
  py::gil_scoped_release release;
  const fastbert::Elementwise& run = fastbert::elementwise();
  fastbert::team_for((count + kElementwisePart - 1) / kElementwisePart, threads, [&](size_t part, int) {
    const size_t begin = part * kElementwisePart, size = std::min(kElementwisePart, count - begin);
    if (which == 0) run.to_bf16(at<float>(x) + begin, at<fastbert::Bf16>(out) + begin, size);
    if (which == 1) run.to_float(at<fastbert::Bf16>(x) + begin, at<float>(out) + begin, size);
    if (which == 2) run.exp(at<float>(x) + begin, at<float>(out) + begin, size);
  });
}

// glibc gives freed memory back at once, and the next step pays for every page of it again: a twentieth of a step.
// False where the C library has no such switch.
bool keep_freed_memory() {
#ifdef __GLIBC__
  return mallopt(M_MMAP_THRESHOLD, 1 << 30) && mallopt(M_TRIM_THRESHOLD, INT_MAX) && mallopt(M_TOP_PAD, 64 << 20);
#else
  return false;
#endif
}

}  // namespace

void bind_cpu(py::module_& m) {
  m.def("keep_freed_memory", &keep_freed_memory);
  m.def("cpu_isas", [] {
    std::vector<std::string> names;
    for (const auto isa : fastbert::available_isas()) names.emplace_back(fastbert::isa_name(isa));
    return names;
  });
  m.def("cpu_isa", [] { return std::string(fastbert::isa_name(fastbert::current_isa())); });
  m.def("cpu_set_isa", &fastbert::set_current_isa, py::arg("name"));
  m.def("cpu_team", [] { return std::string(fastbert::team_name()); });
  m.def("cpu_elementwise", &run_elementwise, py::arg("which"), py::arg("x"), py::arg("out"), py::arg("count"),
        py::arg("threads"));
}
