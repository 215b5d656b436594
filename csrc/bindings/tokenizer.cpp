// The tokenizer for Python (used by fastbert/text only).
#include "bindings/bindings.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "system/input_error.h"
#include "text/nfc.h"
#include "text/normalizer.h"
#include "system/parallel.h"
#include "text/tokenizer_batch.h"

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

static bool is_ready_str(PyObject* object) {
#if PY_VERSION_HEX < 0x030C0000
  return PyUnicode_Check(object) && PyUnicode_IS_READY(object);
#else
  return PyUnicode_Check(object);
#endif
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
  const Kind kind = PyUnicode_IS_ASCII(object)                       ? Kind::kUtf8
                    : PyUnicode_KIND(object) == PyUnicode_1BYTE_KIND ? Kind::kLatin1
                    : PyUnicode_KIND(object) == PyUnicode_2BYTE_KIND ? Kind::kUcs2
                                                                     : Kind::kUcs4;
  return {PyUnicode_DATA(object), static_cast<size_t>(PyUnicode_GET_LENGTH(object)), kind};
}

// Views of the items of a list of str. The list is our own copy: nobody else can free its items meanwhile. Every str is
// likely far away in memory, so several threads look at them; they only read, while this one holds the GIL.
static std::vector<fastbert::TextView> text_views(const py::list& texts, int threads) {
  constexpr size_t kShare = 1024;
  std::vector<fastbert::TextView> views(texts.size());
  PyObject** const items = PySequence_Fast_ITEMS(texts.ptr());
  std::atomic<bool> ordinary{true};
  fastbert::parallel_for((views.size() + kShare - 1) / kShare, threads, [&](size_t share, int) {
    for (size_t i = share * kShare; i < std::min(views.size(), (share + 1) * kShare); ++i) {
      if (is_ready_str(items[i])) {
        views[i] = text_view(items[i], i);
      } else {
        ordinary = false;
      }
    }
  });
  for (size_t i = 0; !ordinary && i < views.size(); ++i) views[i] = text_view(items[i], i);
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

// (ids, offsets, type ids or None, character offsets or None). encode(options) makes the batch, without the GIL.
template <class Encode>
static py::tuple encode_batch(const py::kwargs& kwargs, bool has_pairs, Encode&& encode) {
  const fastbert::BatchOptions options = batch_options(kwargs);
  fastbert::EncodedBatch batch;
  {
    py::gil_scoped_release release;
    batch = encode(options);
  }
  py::array_t<int64_t> offsets(static_cast<py::ssize_t>(batch.num_texts() + 1));
  int64_t* offsets_data = offsets.mutable_data();
  {
    py::gil_scoped_release release;
    batch.copy_offsets(offsets_data, options.threads);
  }
  const bool narrow = kwargs["dtype"].cast<std::string>() == "uint16";
  py::array ids = narrow ? ids_array<uint16_t>(batch, options.threads) : ids_array<int32_t>(batch, options.threads);
  const auto num_tokens = static_cast<py::ssize_t>(batch.num_tokens());
  py::object type_ids = py::none(), char_offsets = py::none();
  if (has_pairs) {
    py::array_t<int32_t> array(num_tokens);
    batch.copy_type_ids(offsets_data, array.mutable_data());
    type_ids = std::move(array);
  }
  if (options.with_offsets) {
    py::array_t<int32_t> array({num_tokens, py::ssize_t{2}});
    batch.copy_char_offsets(array.mutable_data());
    char_offsets = std::move(array);
  }
  return py::make_tuple(std::move(ids), std::move(offsets), std::move(type_ids), std::move(char_offsets));
}

static py::tuple encode_views(fastbert::BatchEncoder& encoder, const std::vector<fastbert::TextView>& texts,
                              const std::vector<fastbert::TextView>& pairs, const py::kwargs& kwargs) {
  return encode_batch(kwargs, !pairs.empty(),
                      [&](const fastbert::BatchOptions& options) { return encoder.encode(texts, pairs, options); });
}

static py::tuple encode_texts(fastbert::BatchEncoder& encoder, const py::list& texts, const py::object& pairs,
                              const py::kwargs& kwargs) {
  const py::list own_texts(texts[py::slice(0, static_cast<py::ssize_t>(texts.size()), 1)]);
  const bool has_pairs = !pairs.is_none();
  const py::list own_pairs =
      has_pairs ? py::list(pairs[py::slice(0, static_cast<py::ssize_t>(py::len(pairs)), 1)]) : py::list();
  if (has_pairs && own_pairs.size() != own_texts.size()) throw py::value_error("texts and pairs differ in length");
  const int threads = kwargs["threads"].cast<int>();
  py::tuple result = encode_views(encoder, text_views(own_texts, threads), text_views(own_pairs, threads), kwargs);
  if (has_pairs && own_texts.empty()) result[2] = py::array_t<int32_t>(0);
  return result;
}

static const uint8_t* bytes_of(const py::buffer_info& info) { return static_cast<const uint8_t*>(info.ptr); }

static py::tuple encode_lines(fastbert::BatchEncoder& encoder, const py::buffer& data, const py::kwargs& kwargs) {
  const py::buffer_info info = data.request();
  return encode_batch(kwargs, false, [&](const fastbert::BatchOptions& options) {
    return encoder.encode_lines(bytes_of(info), static_cast<size_t>(info.size * info.itemsize), options);
  });
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

static bool may_change_in_nfc(const py::str& text) {
  const fastbert::TextView view = text_view(text, 0);
  py::gil_scoped_release release;
  using Kind = fastbert::TextView::Kind;
  if (view.kind == Kind::kUcs2)
    return fastbert::may_change_in_nfc(static_cast<const uint16_t*>(view.data), view.length);
  return view.kind == Kind::kUcs4 && fastbert::may_change_in_nfc(static_cast<const uint32_t*>(view.data), view.length);
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

void bind_tokenizer(py::module_& m) {
  py::class_<fastbert::BatchEncoder>(m, "Tokenizer")
      .def(py::init(&make_tokenizer), py::arg("vocab"), py::arg("unk_id"), py::arg("special_tokens"),
           py::arg("options"), py::arg("max_input_chars_per_word"), py::arg("simd") = "auto")
      .def("encode_aligned", &encode_aligned, py::arg("text"), py::arg("split_special_tokens"))
      .def("encode_texts", &encode_texts, py::arg("texts"), py::arg("pairs"))
      .def("encode_lines", &encode_lines, py::arg("data"))
      .def("encode_spans", &encode_spans, py::arg("data"), py::arg("bounds"));
  py::class_<fastbert::NormalizerOptions>(m, "NormalizerOptions")
      .def(py::init([](bool lowercase, bool strip_accents, bool clean_text, bool handle_chinese_chars,
                       bool split_punctuation, bool single_digits) {
             return fastbert::NormalizerOptions{lowercase,         strip_accents, clean_text, handle_chinese_chars,
                                                split_punctuation, single_digits};
           }),
           py::kw_only(), py::arg("lowercase"), py::arg("strip_accents"), py::arg("clean_text"),
           py::arg("handle_chinese_chars"), py::arg("split_punctuation") = true, py::arg("single_digits") = false);
  m.def("simd_levels", [] {
    std::vector<std::string> names;
    for (const auto level : fastbert::available_simd_levels()) names.emplace_back(fastbert::simd_name(level));
    return names;
  });
  m.def("may_change_in_nfc", &may_change_in_nfc, py::arg("text"));
  m.def("normalized_words", &normalized_words, py::arg("text"), py::arg("options"));
  m.def("aligned_words", &aligned_words, py::arg("text"), py::arg("options"));
}
