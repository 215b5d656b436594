// Muon for Python (used by fastbert/ops/cpu/muon.py only). Tensors come as addresses, checked by the wrapper.
#include "bindings/bindings.h"

#include <array>
#include <vector>

#include "cpu/muon.h"

namespace {

using Table = py::array_t<int64_t, py::array::c_style>;

template <class T>
T* at(int64_t address) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

// A row of the table for each part: addresses of gradient, weights, momentum and image (0: none), rows, columns.
void muon(const Table& table, const std::vector<float>& steps, float momentum, float kept, std::array<float, 3> abc,
          int iterations, bool bf16, int threads) {
  if (table.ndim() != 2 || table.shape(1) != 6 || static_cast<size_t>(table.shape(0)) != steps.size())
    throw py::value_error("muon: expected a table of 6 columns and a step for each row");
  std::vector<fastbert::MuonPart> parts;
  for (py::ssize_t r = 0; r < table.shape(0); ++r) {
    const int64_t* row = table.data(r, 0);
    parts.push_back({at<const float>(row[0]), at<float>(row[1]), at<float>(row[2]), at<fastbert::Bf16>(row[3]),
                     static_cast<size_t>(row[4]), static_cast<size_t>(row[5]), steps[static_cast<size_t>(r)]});
  }
  py::gil_scoped_release release;
  fastbert::muon_update(parts, {momentum, kept, abc[0], abc[1], abc[2], iterations}, bf16, threads);
}

}  // namespace

void bind_muon(py::module_& m) { m.def("cpu_muon", &muon); }
