// Rows of tables: the sum of some rows of several, and its way back, gradients added to the rows they came from.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/bf16.h"
#include "cpu/isa.h"

namespace fastbert {

constexpr size_t kMaxTables = 3;

template <class E>
struct GatherRows {
  size_t width, tables;
  const E* table[kMaxTables];        // (…, width)
  const int64_t* index[kMaxTables];  // (rows), proven to be inside
  E* out;                            // (rows, width): the sums
};

struct EmbedKernels {
  void (*gather_bf16)(const GatherRows<Bf16>&, size_t begin, size_t end);
  void (*gather_f32)(const GatherRows<float>&, size_t begin, size_t end);
  // out (width) += the sum of rows[0 … count) of grad (…, width), rounded once; scratch holds width floats.
  void (*add_rows_bf16)(Bf16* out, const Bf16* grad, const uint32_t* rows, size_t count, size_t width, float* scratch);
  void (*add_rows_f32)(float* out, const float* grad, const uint32_t* rows, size_t count, size_t width, float* scratch);
};

const EmbedKernels& embed_kernels(Isa isa = current_isa());
extern const EmbedKernels embed_kernels_scalar, embed_kernels_avx2, embed_kernels_avx512, embed_kernels_neon;

// Which rows name each table row, grouped: group g is table row index[g] and the rows order[begin[g] … begin[g + 1]).
struct RowGroups {
  std::vector<int64_t> index;
  std::vector<uint32_t> begin, order;
};
// index (rows), each in [0, table_rows).
RowGroups group_rows(const int64_t* index, size_t rows, size_t table_rows);

}  // namespace fastbert
