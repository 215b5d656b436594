// The plain loops, and the choice among instruction sets.
#include "cpu/embed.h"

#include "cpu/vec_scalar.h"
#include "cpu/embed_loop.h"
FASTBERT_VEC_END

namespace fastbert {

const EmbedKernels embed_kernels_scalar = kEmbedKernels;

const EmbedKernels& embed_kernels(Isa isa) {
  switch (isa) {
#ifdef FASTBERT_X86
    case Isa::kAmxBf16:
    case Isa::kAvx512Bf16:
    case Isa::kAvx512: return embed_kernels_avx512;
    case Isa::kAvx2: return embed_kernels_avx2;
#endif
#ifdef FASTBERT_NEON
    case Isa::kNeonBf16:
    case Isa::kNeon: return embed_kernels_neon;
#endif
    default: return embed_kernels_scalar;
  }
}

RowGroups group_rows(const int64_t* index, size_t rows, size_t table_rows) {
  // a counting sort: stable, so the order of the sums is the order of the rows
  std::vector<uint32_t> place(table_rows + 1, 0);
  for (size_t i = 0; i < rows; ++i) ++place[static_cast<size_t>(index[i]) + 1];
  RowGroups groups;
  for (size_t t = 0; t < table_rows; ++t) {
    if (place[t + 1]) {
      groups.index.push_back(static_cast<int64_t>(t));
      groups.begin.push_back(place[t]);
    }
    place[t + 1] += place[t];
  }
  groups.begin.push_back(static_cast<uint32_t>(rows));
  groups.order.resize(rows);
  for (size_t i = 0; i < rows; ++i) groups.order[place[static_cast<size_t>(index[i])]++] = static_cast<uint32_t>(i);
  return groups;
}

}  // namespace fastbert
