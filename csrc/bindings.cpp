// The only file that knows Python: buffers in, buffers out, the GIL released around every computation.
// Each half has its own section, bound by one function.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace py = pybind11;

// ---- text: tokenizer and vocabulary trainer (used by fastbert/text only) ----
static void bind_text(py::module_& m) { (void)m; }

// ---- batches: philox, masker, packer (used by fastbert/masking.py and fastbert/data only) ----
static void bind_batches(py::module_& m) { (void)m; }

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastbert's C++ core; use it through fastbert.Tokenizer, fastbert.masking and fastbert.data";
  bind_text(m);
  bind_batches(m);
}
