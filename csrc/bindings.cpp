// The only file that knows Python: buffers in, buffers out, the GIL released around every computation.
// Each half has its own section, bound by one function.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "input_error.h"
#include "masker.h"
#include "normalizer.h"
#include "packer.h"
#include "philox.h"
#include "tokenizer_batch.h"
#include "utf8.h"
#include "vocab_trainer.h"
#include "word_counter.h"

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

// A str as it lies in memory, whatever its width: no UTF-8 copy is made nor cached in the object.
static fastbert::TextView text_view(py::handle text, size_t index) {
  PyObject* object = text.ptr();
  if (!PyUnicode_Check(object))
    throw fastbert::InputError("text " + std::to_string(index) + ": expected str, got " +
                               std::string(Py_TYPE(object)->tp_name));
#if PY_VERSION_HEX < 0x030C0000
  if (PyUnicode_READY(object)) throw py::error_already_set();
#endif
  using Kind = fastbert::TextView::Kind;
  const Kind kind = PyUnicode_IS_ASCII(object)                         ? Kind::kUtf8
                    : PyUnicode_KIND(object) == PyUnicode_1BYTE_KIND ? Kind::kLatin1
                    : PyUnicode_KIND(object) == PyUnicode_2BYTE_KIND ? Kind::kUcs2
                                                                     : Kind::kUcs4;
  return {PyUnicode_DATA(object), static_cast<size_t>(PyUnicode_GET_LENGTH(object)), kind};
}

// Views of the items of a list of str. The list is our own copy: nobody else can free its items meanwhile.
static std::vector<fastbert::TextView> text_views(const py::list& texts) {
  std::vector<fastbert::TextView> views;
  views.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i)
    views.push_back(text_view(PyList_GET_ITEM(texts.ptr(), static_cast<Py_ssize_t>(i)), i));
  return views;
}

static fastbert::Truncation truncation_named(const py::object& strategy) {
  if (strategy.is_none()) return fastbert::Truncation::kNone;
  const auto name = strategy.cast<std::string>();
  if (name == "longest_first") return fastbert::Truncation::kLongestFirst;
  if (name == "only_first") return fastbert::Truncation::kOnlyFirst;
  if (name == "only_second") return fastbert::Truncation::kOnlySecond;
  throw py::value_error("strategy='" + name + "': expected longest_first, only_first or only_second");
}

static fastbert::BatchOptions batch_options(const py::kwargs& kwargs) {
  fastbert::BatchOptions options;
  options.add_special_tokens = kwargs["add_special_tokens"].cast<bool>();
  options.split_special_tokens = kwargs["split_special_tokens"].cast<bool>();
  options.with_offsets = kwargs["with_offsets"].cast<bool>();
  options.truncation = truncation_named(kwargs["strategy"]);
  options.truncate_left = kwargs["truncate_left"].cast<bool>();
  options.max_length = kwargs["max_length"].cast<size_t>();
  options.cls_id = kwargs["cls_id"].cast<int32_t>();
  options.sep_id = kwargs["sep_id"].cast<int32_t>();
  options.threads = kwargs["threads"].cast<int>();
  return options;
}

template <class Id>
static py::array ids_array(const fastbert::EncodedBatch& batch, int threads) {
  py::array_t<Id> ids(static_cast<py::ssize_t>(batch.num_tokens()));
  Id* data = ids.mutable_data();
  py::gil_scoped_release release;
  batch.copy_ids(data, threads);
  return std::move(ids);
}

// (ids, offsets, type ids or None, character offsets or None)
static py::tuple encode_views(fastbert::BatchEncoder& encoder, const std::vector<fastbert::TextView>& texts,
                              const std::vector<fastbert::TextView>& pairs, const py::kwargs& kwargs) {
  const fastbert::BatchOptions options = batch_options(kwargs);
  py::array_t<int64_t> offsets(static_cast<py::ssize_t>(texts.size() + 1));
  int64_t* offsets_data = offsets.mutable_data();
  fastbert::EncodedBatch batch;
  {
    py::gil_scoped_release release;
    batch = encoder.encode(texts, pairs, options, offsets_data);
  }
  const bool narrow = kwargs["dtype"].cast<std::string>() == "uint16";
  py::array ids = narrow ? ids_array<uint16_t>(batch, options.threads) : ids_array<int32_t>(batch, options.threads);
  const auto num_tokens = static_cast<py::ssize_t>(batch.num_tokens());
  py::object type_ids = py::none(), char_offsets = py::none();
  if (!pairs.empty()) {
    py::array_t<int32_t> array(num_tokens);
    batch.copy_type_ids(array.mutable_data());
    type_ids = std::move(array);
  }
  if (options.with_offsets) {
    py::array_t<int32_t> array({num_tokens, py::ssize_t{2}});
    batch.copy_char_offsets(array.mutable_data());
    char_offsets = std::move(array);
  }
  return py::make_tuple(std::move(ids), std::move(offsets), std::move(type_ids), std::move(char_offsets));
}

static py::tuple encode_texts(fastbert::BatchEncoder& encoder, const py::list& texts, const py::object& pairs,
                              const py::kwargs& kwargs) {
  const py::list own_texts(texts[py::slice(0, static_cast<py::ssize_t>(texts.size()), 1)]);
  const bool has_pairs = !pairs.is_none();
  const py::list own_pairs =
      has_pairs ? py::list(pairs[py::slice(0, static_cast<py::ssize_t>(py::len(pairs)), 1)]) : py::list();
  if (has_pairs && own_pairs.size() != own_texts.size()) throw py::value_error("texts and pairs differ in length");
  py::tuple result = encode_views(encoder, text_views(own_texts), text_views(own_pairs), kwargs);
  if (has_pairs && own_texts.empty()) result[2] = py::array_t<int32_t>(0);
  return result;
}

static const uint8_t* bytes_of(const py::buffer_info& info) { return static_cast<const uint8_t*>(info.ptr); }

static py::tuple encode_lines(fastbert::BatchEncoder& encoder, const py::buffer& data, const py::kwargs& kwargs) {
  const py::buffer_info info = data.request();
  std::vector<fastbert::TextView> lines;
  {
    py::gil_scoped_release release;
    lines = fastbert::split_lines(bytes_of(info), static_cast<size_t>(info.size * info.itemsize));
  }
  return encode_views(encoder, lines, {}, kwargs);
}

// bounds: (B + 1,) int64 byte offsets into data, as Arrow's string columns have them.
static py::tuple encode_spans(fastbert::BatchEncoder& encoder, const py::buffer& data,
                              const py::array_t<int64_t>& bounds, const py::kwargs& kwargs) {
  const py::buffer_info info = data.request();
  const int64_t size = info.size * info.itemsize;
  const auto at = bounds.unchecked<1>();
  std::vector<fastbert::TextView> texts;
  for (py::ssize_t i = 0; i + 1 < at.shape(0); ++i) {
    if (at(i) < 0 || at(i) > at(i + 1) || at(i + 1) > size)
      throw py::value_error("string offsets run outside of the data");
    texts.push_back({bytes_of(info) + at(i), static_cast<size_t>(at(i + 1) - at(i)), fastbert::TextView::kUtf8});
  }
  return encode_views(encoder, texts, {}, kwargs);
}

static py::tuple encode_aligned(fastbert::BatchEncoder& encoder, const py::str& text, bool split_special_tokens) {
  std::vector<uint8_t> utf8;
  const fastbert::TextView view = text_view(text, 0);
  fastbert::AlignedTokens tokens;
  {
    py::gil_scoped_release release;
    const fastbert::ByteSpan span = fastbert::to_utf8(view, utf8);
    encoder.encode_aligned(span, split_special_tokens, tokens);
  }
  return py::make_tuple(tokens.ids, tokens.begins, tokens.ends, tokens.word_ids);
}

static std::unique_ptr<fastbert::BatchEncoder> make_tokenizer(const std::vector<std::string>& vocab, int32_t unk_id,
                                                              const py::dict& special_tokens,
                                                              const fastbert::NormalizerOptions& options,
                                                              size_t max_input_chars_per_word,
                                                              const std::string& simd) {
  std::vector<fastbert::SpecialToken> tokens;
  for (const auto& [text, id] : special_tokens) tokens.push_back({text.cast<std::string>(), id.cast<int32_t>()});
  const fastbert::TokenizerOptions all{options, max_input_chars_per_word, fastbert::simd_level_named(simd)};
  return std::make_unique<fastbert::BatchEncoder>(
      std::make_shared<const fastbert::Tokenizer>(vocab, unk_id, std::move(tokens), all));
}

static void translate_input_error(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const fastbert::InputError& input_error) {
    // a word cut in the middle of a character may stand in the message
    const py::object message = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(input_error.what(), static_cast<Py_ssize_t>(std::strlen(input_error.what())), "replace"));
    PyErr_SetObject(py::module_::import("fastbert.errors").attr("InputError").ptr(), message.ptr());
  }
}

// The vocabulary trainer. Counting and merging run without the GIL; between merges Ctrl-C is heard.

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
    auto trainer = counter.read([&](const fastbert::CountTable& counts) {
      return std::make_unique<fastbert::VocabTrainer>(counts, options);
    });
    vocab = trainer->learn(report);
  }
  return py::make_tuple(py::cast(vocab.tokens), vocab.num_fixed, vocab.num_characters, vocab.num_dropped);
}

static void bind_vocab(py::module_& m) {
  using Counter = fastbert::WordCounter;
  py::class_<Counter>(m, "WordCounter")
      .def(py::init<const fastbert::NormalizerOptions&, std::vector<std::string>, int>(), py::arg("options"),
           py::arg("special_tokens"), py::arg("threads"))
      .def("add_texts", &count_texts, py::arg("texts"))
      .def("add_bytes", &count_bytes, py::arg("data"), py::arg("final"))
      .def("add_word", [](Counter& counter, const py::str& word, int64_t count) {
        const std::string_view view = utf8_view(word);
        py::gil_scoped_release release;
        counter.add_word(view, count);
      }, py::arg("word"), py::arg("count"))
      .def("merge", &Counter::merge, py::arg("other"), py::call_guard<py::gil_scoped_release>())
      .def("items", &count_items)
      .def("__len__", [](Counter& counter) {
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

static void bind_text(py::module_& m) {
  py::register_exception_translator(&translate_input_error);
  py::class_<fastbert::BatchEncoder>(m, "Tokenizer")
      .def(py::init(&make_tokenizer), py::arg("vocab"), py::arg("unk_id"), py::arg("special_tokens"),
           py::arg("options"), py::arg("max_input_chars_per_word"), py::arg("simd") = "auto")
      .def("encode_aligned", &encode_aligned, py::arg("text"), py::arg("split_special_tokens"))
      .def("encode_texts", &encode_texts, py::arg("texts"), py::arg("pairs"))
      .def("encode_lines", &encode_lines, py::arg("data"))
      .def("encode_spans", &encode_spans, py::arg("data"), py::arg("bounds"));
  py::class_<fastbert::NormalizerOptions>(m, "NormalizerOptions")
      .def(py::init([](bool lowercase, bool strip_accents, bool clean_text, bool handle_chinese_chars) {
             return fastbert::NormalizerOptions{lowercase, strip_accents, clean_text, handle_chinese_chars};
           }),
           py::kw_only(), py::arg("lowercase"), py::arg("strip_accents"), py::arg("clean_text"),
           py::arg("handle_chinese_chars"));
  m.def("simd_levels", [] {
    std::vector<std::string> names;
    for (const auto level : fastbert::available_simd_levels()) names.emplace_back(fastbert::simd_name(level));
    return names;
  });
  m.def("normalized_words", &normalized_words, py::arg("text"), py::arg("options"));
  m.def("aligned_words", &aligned_words, py::arg("text"), py::arg("options"));
  bind_vocab(m);
}

// ---- batches: philox, masker, packer (used by fastbert/masking.py and fastbert/data only) ----

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
static Array<T> to_array(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// Returns (row, masked_index, labels): row is -1, or the first with an id outside the vocabulary, nothing being changed.
// Anything else that is wrong raises; fastbert.masking then finds the words for it.
static py::tuple mask_batch(Array<int64_t> input_ids, Array<int32_t> cu_seqlens, Array<int64_t> sequence_ids,
                            Array<uint64_t> select_below, Array<uint8_t> flags, Array<int64_t> special_ids,
                            uint64_t seed, uint32_t epoch, int unit, int64_t mask_id, uint64_t mask_below,
                            uint64_t random_below, Array<uint64_t> span_below, Array<uint64_t> run_below) {
  const size_t num_sequences = static_cast<size_t>(sequence_ids.size());
  bool good = input_ids.ndim() == 1 && cu_seqlens.ndim() == 1 && sequence_ids.ndim() == 1 &&
              cu_seqlens.size() == sequence_ids.size() + 1 && cu_seqlens.at(0) == 0 &&
              cu_seqlens.data()[num_sequences] == input_ids.size() &&
              (select_below.size() == 1 || select_below.size() == sequence_ids.size()) &&
              span_below.size() == fastbert::kMaxSpan && run_below.size() == fastbert::kMaxSpan;
  for (size_t b = 0; good && b < num_sequences; ++b)
    good = cu_seqlens.data()[b] <= cu_seqlens.data()[b + 1] && sequence_ids.data()[b] >> 56 == 0;
  if (!good) throw py::value_error("mask_batch: the arrays do not make a batch");

  fastbert::MaskRule rule;
  rule.seed = seed, rule.epoch = epoch, rule.unit = static_cast<fastbert::MaskUnit>(unit), rule.mask_id = mask_id;
  rule.vocab_size = flags.size(), rule.flags = flags.data();
  rule.special_ids.assign(special_ids.data(), special_ids.data() + special_ids.size());
  rule.mask_below = mask_below, rule.random_below = random_below;
  std::copy_n(span_below.data(), fastbert::kMaxSpan, rule.span_below);
  std::copy_n(run_below.data(), fastbert::kMaxSpan, rule.run_below);
  const fastbert::MaskBatch batch{input_ids.mutable_data(), cu_seqlens.data(),   sequence_ids.data(),
                                  num_sequences,            select_below.data(), size_t{select_below.size() > 1}};
  // The GIL is kept for a batch of the usual size: the call takes microseconds, and getting it back from a busy
  // prefetch thread may take five milliseconds.
  std::optional<py::gil_scoped_release> release;
  if (input_ids.size() > 1 << 18) release.emplace();
  size_t count = 0;
  const int64_t bad = fastbert::select_mask(rule, batch, count);
  release.reset();
  Array<int64_t> masked_index(static_cast<py::ssize_t>(count)), labels(static_cast<py::ssize_t>(count));
  int64_t *index_data = masked_index.mutable_data(), *labels_data = labels.mutable_data();
  if (input_ids.size() > 1 << 18) release.emplace();
  if (bad < 0) fastbert::finish_mask(rule, batch, count, index_data, labels_data);
  release.reset();
  return py::make_tuple(bad, masked_index, labels);
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

static py::tuple pack_batches(Array<int64_t> lengths, int64_t batch_tokens) {
  std::vector<int64_t> batch_of;
  int64_t num_batches;
  {
    py::gil_scoped_release release;
    num_batches =
        fastbert::pack_batches(lengths.data(), static_cast<size_t>(lengths.size()), batch_tokens, batch_of);
  }
  return py::make_tuple(to_array(batch_of), num_batches);
}

static void bind_batches(py::module_& m) {
  m.def("pack_batches", &pack_batches, py::arg("lengths").noconvert(), py::arg("batch_tokens"));
  m.def("philox", &philox, py::arg("key"), py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"), py::arg("path"));
  m.def("philox_path_supported", &fastbert::philox_path_supported, py::arg("path"));
  m.def("mask_batch", &mask_batch, py::arg("input_ids").noconvert(), py::arg("cu_seqlens").noconvert(),
        py::arg("sequence_ids").noconvert(), py::arg("select_below").noconvert(), py::arg("flags").noconvert(),
        py::arg("special_ids").noconvert(), py::arg("seed"), py::arg("epoch"), py::arg("unit"), py::arg("mask_id"),
        py::arg("mask_below"), py::arg("random_below"), py::arg("span_below"), py::arg("run_below"));
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "fastbert's C++ core; use it through fastbert.Tokenizer, fastbert.masking and fastbert.data";
  bind_text(m);
  bind_batches(m);
}
