// The compute kernels' ground for Python (used by fastbert/ops/cpu only): instruction sets, threads, memory.
#include "bindings/bindings.h"

#include <climits>
#include <string>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "cpu/isa.h"
#include "cpu/team.h"

namespace {

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
}
