// The only file that knows Python: buffers in, buffers out, the GIL released around every computation.
// Each half has its own section, bound by one function.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "masker.h"
#include "normalizer.h"
#include "philox.h"

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

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
static Array<T> to_array(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// Shapes and ranges are checked by fastbert.masking.
static py::tuple mask_batch(Array<int64_t> input_ids, Array<int32_t> cu_seqlens, Array<int64_t> sequence_ids,
                            Array<uint64_t> select_below, Array<uint8_t> flags, std::vector<int64_t> special_ids,
                            uint64_t seed, uint32_t epoch, int unit, int64_t mask_id, uint64_t mask_below,
                            uint64_t random_below, Array<uint64_t> span_below, Array<uint64_t> run_below) {
  fastbert::MaskRule rule;
  rule.seed = seed, rule.epoch = epoch, rule.unit = static_cast<fastbert::MaskUnit>(unit), rule.mask_id = mask_id;
  rule.vocab_size = flags.size(), rule.flags = flags.data(), rule.special_ids = std::move(special_ids);
  rule.mask_below = mask_below, rule.random_below = random_below;
  if (span_below.size() != fastbert::kMaxSpan || run_below.size() != fastbert::kMaxSpan)
    throw py::value_error("span_below and run_below: expected 10 entries each");
  std::copy_n(span_below.data(), fastbert::kMaxSpan, rule.span_below);
  std::copy_n(run_below.data(), fastbert::kMaxSpan, rule.run_below);
  int64_t* ids = input_ids.mutable_data();
  const size_t num_sequences = static_cast<size_t>(sequence_ids.size());
  std::vector<int64_t> masked_index, labels;
  int64_t bad;
  {
    py::gil_scoped_release release;
    bad = fastbert::mask_batch(rule, ids, cu_seqlens.data(), sequence_ids.data(), select_below.data(), num_sequences,
                               masked_index, labels);
  }
  return py::make_tuple(bad, to_array(masked_index), to_array(labels));
}

static Array<uint32_t> philox(uint64_t key, Array<uint32_t> c0, Array<uint32_t> c1, Array<uint32_t> c2, uint32_t c3,
                              int path) {
  if (c1.size() != c0.size() || c2.size() != c0.size()) throw py::value_error("c0, c1, c2: expected one size");
  if (!fastbert::philox_path_supported(path)) throw py::value_error("this machine has no such path");
  Array<uint32_t> out({c0.size(), py::ssize_t{4}});
  fastbert::philox_blocks_on(path, key, c0.data(), c1.data(), c2.data(), c3, static_cast<size_t>(c0.size()),
                             out.mutable_data());
  return out;
}

static void bind_batches(py::module_& m) {
  m.def("philox", &philox, py::arg("key"), py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"), py::arg("path"));
  m.def("philox_path_supported", &fastbert::philox_path_supported, py::arg("path"));
  m.def("mask_batch", &mask_batch, py::arg("input_ids").noconvert(), py::arg("cu_seqlens").noconvert(),
        py::arg("sequence_ids").noconvert(), py::arg("select_below").noconvert(), py::arg("flags").noconvert(),
        py::arg("special_ids"), py::arg("seed"), py::arg("epoch"), py::arg("unit"), py::arg("mask_id"),
        py::arg("mask_below"), py::arg("random_below"), py::arg("span_below"), py::arg("run_below"));
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastbert's C++ core; use it through fastbert.Tokenizer, fastbert.masking and fastbert.data";
  bind_text(m);
  bind_batches(m);
}
