// Philox, masker and packer for Python (used by fastbert/data/batches/masking.py and fastbert/data only).
#include "bindings/bindings.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "data/masker.h"
#include "data/packer.h"
#include "data/philox.h"

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
static Array<T> to_array(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// Returns (row, masked_index, labels): row is -1, or the first with an id outside the vocabulary, nothing being
// changed. Anything else that is wrong raises; fastbert.data.batches.masking then finds the words for it.
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
  const fastbert::MaskBatch batch{input_ids.mutable_data(), cu_seqlens.data(),
                                  sequence_ids.data(),      num_sequences,
                                  select_below.data(),      size_t{select_below.size() > 1}};
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

// Word 0 of block 0 of each item: fastbert.data.batches.philox.draw(seed, epoch, purpose, items)[:, 0].
static Array<uint32_t> draw_first(uint64_t seed, uint32_t epoch, uint32_t purpose, Array<int64_t> items) {
  const size_t count = static_cast<size_t>(items.size());
  std::vector<uint32_t> zeros(count, 0), low(count), high(count), words(4 * count);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t item = static_cast<uint64_t>(items.data()[i]);
    if (item >> 56) throw py::value_error("items: expected whole numbers from 0 to 2^56 - 1");
    low[i] = static_cast<uint32_t>(item);
    high[i] = fastbert::counter_high(item, static_cast<fastbert::Purpose>(purpose));
  }
  fastbert::philox_blocks(seed, zeros.data(), low.data(), high.data(), epoch, count, words.data());
  Array<uint32_t> out(items.size());
  for (size_t i = 0; i < count; ++i) out.mutable_data()[i] = words[4 * i];
  return out;
}

static py::tuple pack_batches(Array<int64_t> lengths, int64_t batch_tokens) {
  std::vector<int64_t> batch_of;
  int64_t num_batches;
  {
    py::gil_scoped_release release;
    num_batches = fastbert::pack_batches(lengths.data(), static_cast<size_t>(lengths.size()), batch_tokens, batch_of);
  }
  return py::make_tuple(to_array(batch_of), num_batches);
}

void bind_batches(py::module_& m) {
  m.def("pack_batches", &pack_batches, py::arg("lengths").noconvert(), py::arg("batch_tokens"));
  m.def("philox", &philox, py::arg("key"), py::arg("c0"), py::arg("c1"), py::arg("c2"), py::arg("c3"), py::arg("path"));
  m.def("draw_first", &draw_first, py::arg("seed"), py::arg("epoch"), py::arg("purpose"), py::arg("items").noconvert());
  m.def("philox_path_supported", &fastbert::philox_path_supported, py::arg("path"));
  m.def("mask_batch", &mask_batch, py::arg("input_ids").noconvert(), py::arg("cu_seqlens").noconvert(),
        py::arg("sequence_ids").noconvert(), py::arg("select_below").noconvert(), py::arg("flags").noconvert(),
        py::arg("special_ids").noconvert(), py::arg("seed"), py::arg("epoch"), py::arg("unit"), py::arg("mask_id"),
        py::arg("mask_below"), py::arg("random_below"), py::arg("span_below"), py::arg("run_below"));
}
