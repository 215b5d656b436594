// What the binding files share. Only bindings/*.cpp know Python: buffers in, buffers out, the GIL released around every
// computation. One file and one bind_* function for each part of the core.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>

namespace py = pybind11;

void bind_tokenizer(py::module_& m);
void bind_vocab(py::module_& m);
void bind_batches(py::module_& m);
void bind_cpu(py::module_& m);
void bind_attention(py::module_& m);
void bind_loss(py::module_& m);
void bind_rows(py::module_& m);
void bind_muon(py::module_& m);
void bind_identity(py::module_& m);
void bind_lines(py::module_& m);
void bind_encoder(py::module_& m);

// The UTF-8 of a str, owned by it. A lone surrogate raises UnicodeEncodeError.
inline std::string_view utf8_view(py::handle text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (!data) throw py::error_already_set();
  return {data, static_cast<size_t>(size)};
}

inline const uint8_t* as_bytes(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

inline py::str to_str(const uint8_t* bytes, size_t size) { return py::str(reinterpret_cast<const char*>(bytes), size); }
