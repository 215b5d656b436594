// The only file that knows Python: buffers in, buffers out, the GIL released around every computation.
// Each half has its own section, bound by one function.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string_view>
#include <vector>

#include "normalizer.h"

namespace py = pybind11;

// ---- text: tokenizer and vocabulary trainer (used by fastbert/text only) ----

// The UTF-8 of a str, owned by it. A lone surrogate raises UnicodeEncodeError.
static std::string_view utf8_view(py::handle text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (!data) throw py::error_already_set();
  return {data, static_cast<size_t>(size)};
}

static const uint8_t* as_bytes(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

static py::str to_str(const uint8_t* bytes, size_t size) {
  return py::str(reinterpret_cast<const char*>(bytes), size);
}

static py::list normalized_words(py::str text, const fastbert::NormalizerOptions& options) {
  const std::string_view view = utf8_view(text);
  py::list result;
  fastbert::Normalizer(options).words(as_bytes(view), view.size(), [&](const uint8_t* word, size_t size, size_t) {
    result.append(to_str(word, size));
  });
  return result;
}

static py::list aligned_words(py::str text, const fastbert::NormalizerOptions& options) {
  const std::string_view view = utf8_view(text);
  py::list result;
  fastbert::Normalizer(options).aligned_words(
      as_bytes(view), view.size(), 0, [&](const uint8_t* word, size_t size, size_t chars, const uint32_t* sources) {
        result.append(py::make_tuple(to_str(word, size), std::vector<uint32_t>(sources, sources + chars)));
      });
  return result;
}

static void bind_text(py::module_& m) {
  py::class_<fastbert::NormalizerOptions>(m, "NormalizerOptions")
      .def(py::init([](bool lowercase, bool strip_accents, bool clean_text, bool handle_chinese_chars) {
             return fastbert::NormalizerOptions{lowercase, strip_accents, clean_text, handle_chinese_chars};
           }),
           py::kw_only(), py::arg("lowercase"), py::arg("strip_accents"), py::arg("clean_text"),
           py::arg("handle_chinese_chars"));
  m.def("normalized_words", &normalized_words, py::arg("text"), py::arg("options"));
  m.def("aligned_words", &aligned_words, py::arg("text"), py::arg("options"));
}

// ---- batches: philox, masker, packer (used by fastbert/masking.py and fastbert/data only) ----
static void bind_batches(py::module_& m) { (void)m; }

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastbert's C++ core; use it through fastbert.Tokenizer, fastbert.masking and fastbert.data";
  bind_text(m);
  bind_batches(m);
}
