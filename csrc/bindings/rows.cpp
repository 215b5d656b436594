// The row kernels for Python (used by fastbert/ops/cpu only): LayerNorm, GELU, sums, embedding rows,
// AdamW. Tensors come as addresses, checked by the wrappers; `bf16` says which of the two element types they have.
#include "bindings/bindings.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/adamw.h"
#include "cpu/dropout.h"
#include "cpu/elementwise.h"
#include "cpu/embed.h"
#include "cpu/rows.h"
#include "cpu/team.h"

namespace {

using fastbert::Bf16;
using fastbert::team_for;
using Address = uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// A vector of parameters as floats, whatever it is stored as; nothing for address 0.
class Floats {
 public:
  Floats(Address address, bool bf16, size_t count) : data_(at<const float>(address)) {
    if (!address || !bf16) return;
    copy_.resize(count);
    fastbert::elementwise().to_float(at<Bf16>(address), copy_.data(), count);
    data_ = copy_.data();
  }
  const float* get() const { return data_; }

 private:
  const float* data_;
  std::vector<float> copy_;
};

// Rows in parts of a size that does not depend on the threads, so that sums over rows do not either.
struct Parts {
  size_t rows, size, count;
  explicit Parts(size_t rows)
      : rows(rows), size(std::max<size_t>(64, (rows + 15) / 16)), count((rows + size - 1) / size) {}
  size_t begin(size_t part) const { return part * size; }
  size_t end(size_t part) const { return std::min(rows, (part + 1) * size); }
};

// sums[i] = Σ parts[p · count + i], in the order of the parts; then stored as the parameters' type.
void add_parts(const float* parts, size_t number, size_t stride, size_t count, Address out, bool bf16) {
  if (!out) return;
  std::vector<float> total(parts, parts + count);
  for (size_t p = 1; p < number; ++p)
    for (size_t i = 0; i < count; ++i) total[i] += parts[p * stride + i];
  if (bf16) fastbert::elementwise().to_bf16(total.data(), at<Bf16>(out), count);
  else std::copy(total.begin(), total.end(), at<float>(out));
}

template <class E, class Run>
void norm_forward(Run run, size_t rows, size_t width, Address x, const float* x_bias, Address residual,
                  const float* weight, const float* bias, float eps, Address total, Address out, Address mean,
                  Address rstd, int threads) {
  const fastbert::LayerNormForward<E> a{width, at<E>(x),     x_bias,     at<E>(residual), weight,         bias,
                                        eps,   at<E>(total), at<E>(out), at<float>(mean), at<float>(rstd)};
  const Parts parts(rows);
  team_for(parts.count, threads, [&](size_t part, int) {
    std::vector<float> scratch(width);
    run(a, parts.begin(part), parts.end(part), scratch.data());
  });
}

// vectors: x_bias, weight and bias are bf16.
void layer_norm_forward(bool bf16, bool vectors_bf16, size_t rows, size_t width, Address x, Address x_bias,
                        Address residual, Address weight, Address bias, float eps, Address total, Address out,
                        Address mean, Address rstd, int threads) {
  py::gil_scoped_release release;
  const Floats xb(x_bias, vectors_bf16, width), w(weight, vectors_bf16, width), b(bias, vectors_bf16, width);
  const auto& kernels = fastbert::row_kernels();
  if (bf16)
    norm_forward<Bf16>(kernels.norm_forward_bf16, rows, width, x, xb.get(), residual, w.get(), b.get(), eps, total, out,
                       mean, rstd, threads);
  else
    norm_forward<float>(kernels.norm_forward_f32, rows, width, x, xb.get(), residual, w.get(), b.get(), eps, total, out,
                        mean, rstd, threads);
}

template <class E, class Run>
void norm_backward(Run run, size_t rows, size_t width, Address grad_out, Address grad_sum, Address total, Address mean,
                   Address rstd, const float* weight, Address grad_total, Address sums[3], bool vectors_bf16,
                   int threads) {
  const fastbert::LayerNormBackward<E> a{width,           at<E>(grad_out), at<E>(grad_sum), at<E>(total),
                                         at<float>(mean), at<float>(rstd), weight,          at<E>(grad_total)};
  const Parts parts(rows);
  std::vector<float> partial(std::max<size_t>(parts.count, 1) * 3 * width);
  team_for(parts.count, threads,
           [&](size_t part, int) { run(a, parts.begin(part), parts.end(part), partial.data() + part * 3 * width); });
  for (size_t i = 0; i < 3; ++i)
    add_parts(partial.data() + i * width, parts.count, 3 * width, width, sums[i], vectors_bf16);
}

void layer_norm_backward(bool bf16, bool vectors_bf16, size_t rows, size_t width, Address grad_out, Address grad_sum,
                         Address total, Address mean, Address rstd, Address weight, Address grad_total,
                         Address grad_weight, Address grad_bias, Address sum_total, int threads) {
  py::gil_scoped_release release;
  const Floats w(weight, vectors_bf16, width);
  Address sums[3] = {grad_weight, grad_bias, sum_total};
  const auto& kernels = fastbert::row_kernels();
  if (bf16)
    norm_backward<Bf16>(kernels.norm_backward_bf16, rows, width, grad_out, grad_sum, total, mean, rstd, w.get(),
                        grad_total, sums, vectors_bf16, threads);
  else
    norm_backward<float>(kernels.norm_backward_f32, rows, width, grad_out, grad_sum, total, mean, rstd, w.get(),
                         grad_total, sums, vectors_bf16, threads);
}

void gelu_forward(bool bf16, bool vectors_bf16, size_t rows, size_t width, bool gated, bool tanh, Address x,
                  Address bias, Address out, int threads) {
  py::gil_scoped_release release;
  const Floats b(bias, vectors_bf16, gated ? 2 * width : width);
  const auto& kernels = fastbert::row_kernels();
  const Parts parts(rows);
  team_for(parts.count, threads, [&](size_t part, int) {
    if (bf16)
      kernels.gelu_forward_bf16({width, gated, tanh, at<Bf16>(x), b.get(), at<Bf16>(out)}, parts.begin(part),
                                parts.end(part));
    else
      kernels.gelu_forward_f32({width, gated, tanh, at<float>(x), b.get(), at<float>(out)}, parts.begin(part),
                               parts.end(part));
  });
}

void gelu_backward(bool bf16, bool vectors_bf16, size_t rows, size_t width, bool gated, bool tanh, Address grad_out,
                   Address x, Address bias, Address grad_x, Address grad_bias, int threads) {
  py::gil_scoped_release release;
  const size_t x_width = gated ? 2 * width : width;
  const Floats b(bias, vectors_bf16, x_width);
  const auto& kernels = fastbert::row_kernels();
  const Parts parts(rows);
  std::vector<float> partial(std::max<size_t>(parts.count, 1) * x_width);
  team_for(parts.count, threads, [&](size_t part, int) {
    float* sums = partial.data() + part * x_width;
    if (bf16)
      kernels.gelu_backward_bf16({width, gated, tanh, at<Bf16>(grad_out), at<Bf16>(x), b.get(), at<Bf16>(grad_x)},
                                 parts.begin(part), parts.end(part), sums);
    else
      kernels.gelu_backward_f32({width, gated, tanh, at<float>(grad_out), at<float>(x), b.get(), at<float>(grad_x)},
                                parts.begin(part), parts.end(part), sums);
  });
  add_parts(partial.data(), parts.count, x_width, x_width, grad_bias, vectors_bf16);
}

void sum_rows(bool bf16, bool vectors_bf16, size_t rows, size_t width, Address x, Address out, int threads) {
  py::gil_scoped_release release;
  const auto& kernels = fastbert::row_kernels();
  const Parts parts(rows);
  std::vector<float> partial(std::max<size_t>(parts.count, 1) * width);
  team_for(parts.count, threads, [&](size_t part, int) {
    float* sums = partial.data() + part * width;
    if (bf16) kernels.sum_rows_bf16(at<Bf16>(x), width, parts.begin(part), parts.end(part), sums);
    else kernels.sum_rows_f32(at<float>(x), width, parts.begin(part), parts.end(part), sums);
  });
  add_parts(partial.data(), parts.count, width, width, out, vectors_bf16);
}

void check_index(const int64_t* index, size_t rows, size_t limit) {
  for (size_t i = 0; i < rows; ++i)
    if (index[i] < 0 || static_cast<size_t>(index[i]) >= limit)
      throw py::index_error("index " + std::to_string(index[i]) + " of a table of " + std::to_string(limit) + " rows");
}

// tables and indices: up to three addresses each; limits: rows of each table.
void gather_rows(bool bf16, size_t rows, size_t width, const std::vector<Address>& tables,
                 const std::vector<Address>& indices, const std::vector<size_t>& limits, Address out, int threads) {
  for (size_t i = 0; i < tables.size(); ++i) check_index(at<int64_t>(indices[i]), rows, limits[i]);
  py::gil_scoped_release release;
  const auto& kernels = fastbert::embed_kernels();
  const Parts parts(rows);
  const auto filled = [&](auto& a, auto* element) {
    using E = std::remove_pointer_t<decltype(element)>;
    a.width = width, a.tables = tables.size(), a.out = at<E>(out);
    for (size_t i = 0; i < tables.size(); ++i) a.table[i] = at<E>(tables[i]), a.index[i] = at<int64_t>(indices[i]);
  };
  fastbert::GatherRows<Bf16> narrow{};
  fastbert::GatherRows<float> wide{};
  if (bf16) filled(narrow, static_cast<Bf16*>(nullptr));
  else filled(wide, static_cast<float*>(nullptr));
  team_for(parts.count, threads, [&](size_t part, int) {
    if (bf16) kernels.gather_bf16(narrow, parts.begin(part), parts.end(part));
    else kernels.gather_f32(wide, parts.begin(part), parts.end(part));
  });
}

// out (table_rows, width) += grad's rows (rows, width) where index says.
void scatter_rows(bool bf16, size_t rows, size_t width, size_t table_rows, Address index, Address grad, Address out,
                  int threads) {
  check_index(at<int64_t>(index), rows, table_rows);
  py::gil_scoped_release release;
  const auto& kernels = fastbert::embed_kernels();
  const fastbert::RowGroups groups = fastbert::group_rows(at<int64_t>(index), rows, table_rows);
  const size_t count = groups.index.size(), per_task = 16;
  team_for((count + per_task - 1) / per_task, threads, [&](size_t task, int) {
    std::vector<float> scratch(width);
    for (size_t g = task * per_task; g < std::min(count, (task + 1) * per_task); ++g) {
      const uint32_t* order = groups.order.data() + groups.begin[g];
      const size_t size = groups.begin[g + 1] - groups.begin[g], place = static_cast<size_t>(groups.index[g]) * width;
      if (bf16) kernels.add_rows_bf16(at<Bf16>(out) + place, at<Bf16>(grad), order, size, width, scratch.data());
      else kernels.add_rows_f32(at<float>(out) + place, at<float>(grad), order, size, width, scratch.data());
    }
  });
}

// ---- AdamW ----
// A row of the table for each parameter: address of the gradient, whether it is bf16, addresses of weights, mean,
// square and image (0: none), number of elements, index into `kept`.
constexpr size_t kColumns = 8, kBlock = 16384;
using Table = py::array_t<int64_t, py::array::c_style>;

struct Block {
  const int64_t* row;
  size_t begin, size;
};

std::vector<Block> blocks_of(const Table& table) {
  std::vector<Block> blocks;
  for (py::ssize_t r = 0; r < table.shape(0); ++r) {
    const int64_t* row = table.data(r, 0);
    const auto count = static_cast<size_t>(row[6]);
    for (size_t begin = 0; begin < count; begin += kBlock)
      blocks.push_back({row, begin, std::min(kBlock, count - begin)});
  }
  return blocks;
}

double gradient_norm(const Table& table, int threads) {
  const std::vector<Block> blocks = blocks_of(table);
  py::gil_scoped_release release;
  const auto& kernels = fastbert::adamw_kernels();
  std::vector<float> squares(blocks.size());
  team_for(blocks.size(), threads, [&](size_t i, int) {
    const auto [row, begin, size] = blocks[i];
    squares[i] = row[1] ? kernels.sum_of_squares_bf16(at<Bf16>(row[0]) + begin, size)
                        : kernels.sum_of_squares_f32(at<float>(row[0]) + begin, size);
  });
  double sum = 0;
  for (const float x : squares) sum += x;
  return std::sqrt(sum);
}

void adamw(const Table& table, const std::vector<float>& kept, float grad_scale, float beta1, float beta2,
           float step_size, float second, float eps, int threads) {
  const std::vector<Block> blocks = blocks_of(table);
  py::gil_scoped_release release;
  const auto& kernels = fastbert::adamw_kernels();
  const fastbert::AdamwStep step{grad_scale, 1.0f, beta1, beta2, step_size, second, eps};
  team_for(blocks.size(), threads, [&](size_t i, int) {
    const auto [row, begin, size] = blocks[i];
    auto mine = step;
    mine.kept = kept[static_cast<size_t>(row[7])];
    float *weights = at<float>(row[2]) + begin, *mean = at<float>(row[3]) + begin, *square = at<float>(row[4]) + begin;
    Bf16* image = row[5] ? at<Bf16>(row[5]) + begin : nullptr;
    if (row[1]) kernels.step_bf16(mine, at<Bf16>(row[0]) + begin, weights, mean, square, image, size);
    else kernels.step_f32(mine, at<float>(row[0]) + begin, weights, mean, square, image, size);
  });
}

template <class E, class Run>
void dropout_as(Run run, size_t rows, size_t width, Address x, const float* bias, Address out,
                const fastbert::Dropout& dropout, int threads) {
  const fastbert::DropoutRows<E> a{width, at<E>(x), bias, at<E>(out), dropout};
  const Parts parts(rows);
  team_for(parts.count, threads, [&](size_t part, int) { run(a, parts.begin(part), parts.end(part)); });
}

void dropout(bool bf16, bool bias_bf16, size_t rows, size_t width, Address x, Address bias, Address out,
             float probability, uint64_t seed, int threads) {
  py::gil_scoped_release release;
  const Floats b(bias, bias_bf16, width);
  const fastbert::Dropout how{seed, fastbert::dropout_threshold(probability)};
  const auto& kernels = fastbert::dropout_kernels();
  if (bf16) dropout_as<Bf16>(kernels.rows_bf16, rows, width, x, b.get(), out, how, threads);
  else dropout_as<float>(kernels.rows_f32, rows, width, x, b.get(), out, how, threads);
}

}  // namespace

void bind_rows(py::module_& m) {
  m.def("cpu_dropout", &dropout);
  m.def("cpu_layer_norm_forward", &layer_norm_forward);
  m.def("cpu_layer_norm_backward", &layer_norm_backward);
  m.def("cpu_gelu_forward", &gelu_forward);
  m.def("cpu_gelu_backward", &gelu_backward);
  m.def("cpu_sum_rows", &sum_rows);
  m.def("cpu_gather_rows", &gather_rows);
  m.def("cpu_scatter_rows", &scatter_rows);
  m.def("cpu_gradient_norm", &gradient_norm);
  m.def("cpu_adamw", &adamw);
}
