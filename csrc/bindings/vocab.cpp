// The vocabulary trainer for Python (used by fastbert/text only). Counting and merging run without the GIL; between
// merges Ctrl-C is heard.
#include "bindings/bindings.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "text/utf8.h"
#include "vocab/vocab_trainer.h"
#include "vocab/word_counter.h"

[[noreturn]] static void raise_unicode_decode_error(const uint8_t* data, size_t size, size_t offset) {
  // its object ends shortly after the fault: nobody needs the rest
  const size_t end = std::min(size, offset + 4);
  const py::object error = py::reinterpret_steal<py::object>(PyUnicodeDecodeError_Create(
      "utf-8", reinterpret_cast<const char*>(data), static_cast<Py_ssize_t>(end), static_cast<Py_ssize_t>(offset),
      static_cast<Py_ssize_t>(std::min(end, offset + 1)), "invalid UTF-8"));
  if (!error) throw py::error_already_set();
  PyErr_SetObject(PyExc_UnicodeDecodeError, error.ptr());
  throw py::error_already_set();
}

static void count_texts(fastbert::WordCounter& counter, const py::list& texts) {
  const py::list own(texts[py::slice(0, static_cast<py::ssize_t>(texts.size()), 1)]);
  std::vector<std::string_view> views;
  views.reserve(own.size());
  for (const py::handle text : own) views.push_back(utf8_view(text));
  py::gil_scoped_release release;
  counter.add_texts(views);
}

static size_t count_bytes(fastbert::WordCounter& counter, const py::buffer& data, bool final) {
  const py::buffer_info info = data.request();
  if (info.ndim > 1 || (info.ndim == 1 && info.strides[0] != info.itemsize))
    throw py::value_error("data: expected contiguous bytes");
  const auto* bytes = static_cast<const uint8_t*>(info.ptr);
  const auto size = static_cast<size_t>(info.size * info.itemsize);
  size_t bad = 0;
  {
    py::gil_scoped_release release;
    try {
      return counter.add_bytes(bytes, size, final);
    } catch (const fastbert::InvalidUtf8& error) {
      bad = error.offset;
    }
  }
  raise_unicode_decode_error(bytes, size, bad);
}

static py::list count_items(fastbert::WordCounter& counter) {
  std::vector<fastbert::CountTable::Slot> slots;
  {
    py::gil_scoped_release release;
    slots = counter.read([](const fastbert::CountTable& counts) { return counts.sorted(); });
  }
  py::list result;
  for (const auto& slot : slots) result.append(py::make_tuple(to_str(slot.bytes, slot.size), slot.count));
  return result;
}

static py::tuple learn_vocab(fastbert::WordCounter& counter, size_t vocab_size, int64_t min_frequency,
                             size_t limit_alphabet, const std::vector<std::string>& initial_alphabet,
                             const std::vector<std::string>& special_tokens, const py::object& progress) {
  fastbert::VocabOptions options{vocab_size, min_frequency, limit_alphabet, {}, special_tokens};
  for (const std::string& c : initial_alphabet) {
    const uint8_t* p = as_bytes(c);
    options.initial_alphabet.push_back(fastbert::decode_utf8(p, p + c.size()));
  }
  const auto report = [&](size_t done) {
    py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals()) throw py::error_already_set();
    if (!progress.is_none()) progress(done, vocab_size);
  };
  fastbert::Vocab vocab;
  {
    py::gil_scoped_release release;
    auto trainer = counter.read(
        [&](const fastbert::CountTable& counts) { return std::make_unique<fastbert::VocabTrainer>(counts, options); });
    vocab = trainer->learn(report);
  }
  return py::make_tuple(py::cast(vocab.tokens), vocab.num_fixed, vocab.num_characters, vocab.num_dropped);
}

void bind_vocab(py::module_& m) {
  using Counter = fastbert::WordCounter;
  py::class_<Counter>(m, "WordCounter")
      .def(py::init([](const fastbert::NormalizerOptions& options, size_t max_word_chars, int threads) {
             Counter::Limits limits;
             limits.max_word_chars = max_word_chars;
             return std::make_unique<Counter>(options, threads, limits);
           }),
           py::arg("options"), py::arg("max_word_chars"), py::arg("threads"))
      .def("add_texts", &count_texts, py::arg("texts"))
      .def("add_bytes", &count_bytes, py::arg("data"), py::arg("final"))
      .def(
          "add_word",
          [](Counter& counter, const py::str& word, int64_t count) {
            const std::string_view view = utf8_view(word);
            py::gil_scoped_release release;
            counter.add_word(view, count);
          },
          py::arg("word"), py::arg("count"))
      .def("items", &count_items)
      .def("__len__",
           [](Counter& counter) {
             py::gil_scoped_release release;
             return counter.read([](const fastbert::CountTable& counts) { return counts.size(); });
           })
      .def_property_readonly("total", [](Counter& counter) {
        py::gil_scoped_release release;
        return counter.read([](const fastbert::CountTable& counts) { return counts.total(); });
      });
  m.def("learn_vocab", &learn_vocab, py::arg("counter"), py::arg("vocab_size"), py::arg("min_frequency"),
        py::arg("limit_alphabet"), py::arg("initial_alphabet"), py::arg("special_tokens"), py::arg("progress"));
}
