// The tasks of attention.h, compiled once per instruction set: included after a vec_*.h, vec_math.h and panels.h.
//
// Legend: L rows (queries) of the sequence, S keys that are seen, H head_dim; padded: rounded up to kLanes, the extra
// rows being zeros. Matrices are dense scratch, laid out as panels.h says.
#include "cpu/attention_dropout.h"
namespace fastbert {
namespace {

// Rows of scores computed at a time: what keeps a block of both score matrices in the second-level cache.
constexpr size_t kForwardScores = 16384, kBackwardScores = 32768;

template <class Units>
size_t block_rows(size_t scores, size_t rows, size_t ld) {
  const size_t fitting = std::max(Units::kRowBlock, scores / ld / Units::kRowBlock * Units::kRowBlock);
  return std::min(fitting, rounded_up(rows, 2));
}

// Scratch is handed out piece by piece; with a null base it only counts.
struct Scratch {
  char* base;
  size_t used;
  template <class T>
  T* take(size_t count) {
    T* piece = reinterpret_cast<T*>(base + used);
    used += rounded_up(count * sizeof(T) + 64, 64);  // transposing reads up to a register past the end
    return piece;
  }
};

// Sizes of a task and its place in the tensors.
struct Task {
  size_t start, rows, keys, padded_keys, head_dim, ld;
  int64_t window;
  bool dropping;

  Task(const AttentionArgs& args, size_t sequence)
      : start(args.sequences[sequence].start),
        rows(args.sequences[sequence].rows),
        keys(args.sequences[sequence].keys),
        padded_keys(rounded_up(keys, kLanes)),
        head_dim(args.head_dim),
        ld(padded_keys + kLanes),  // not a power of two: rows would share their places in the first-level cache
        window(args.window),
        dropping(args.dropout.threshold != 0) {}

  size_t first_key(size_t row) const {
    if (window < 0 || row <= static_cast<size_t>(window)) return 0;
    return std::min(row - static_cast<size_t>(window), keys);
  }
  size_t end_key(size_t row) const { return window < 0 ? keys : std::min(keys, row + static_cast<size_t>(window) + 1); }
};

template <class Element>
Element* row_of(const Heads& heads, size_t token, size_t head) {
  return static_cast<Element*>(heads.data) + static_cast<int64_t>(token) * heads.token_stride +
         static_cast<int64_t>(head) * heads.head_stride;
}

// ---- rows between tensors and scratch ----

// Rows first .. first + rows of the sequence into dense units, turned by their angles; zeros up to padded.
template <class Units, class Element>
void gather(const AttentionArgs& args, const Heads& from, bool turned, size_t head, size_t first, size_t rows,
            size_t padded, typename Units::Unit* out) {
  const size_t width = args.head_dim, half = width / 2;
  for (size_t i = 0; i < padded; ++i) {
    auto* row = out + i * (width / Units::kPer);
    if (i >= rows) {
      for (size_t h = 0; h < width; h += Vec::kWidth) Units::store(row, h, Vec::set(0.0f));
      continue;
    }
    const Element* x = row_of<Element>(from, first + i, head);
    if (!turned) {
      if constexpr (sizeof(Element) * Units::kPer == sizeof(typename Units::Unit))
        std::memcpy(row, x, width * sizeof(Element));
      else
        for (size_t h = 0; h < width; h += Vec::kWidth) Units::store(row, h, Vec::load(x + h));
      continue;
    }
    const float *cos = args.cos + (first + i) * half, *sin = args.sin + (first + i) * half;
    for (size_t h = 0; h < half; h += Vec::kWidth) {  // half is a multiple of 8: the last register may be half full
      const size_t n = std::min(Vec::kWidth, half - h);
      const Vec::T c = Vec::load_first(cos + h, n), s = Vec::load_first(sin + h, n);
      const Vec::T a = Vec::load_first(x + h, n), b = Vec::load_first(x + half + h, n);
      Units::store_first(row, h, a * c - b * s, n);
      Units::store_first(row, half + h, b * c + a * s, n);
    }
  }
}

// out row = x · factor, turned back by its angles where it was turned.
template <class Element>
void scatter_row(const AttentionArgs& args, bool turned, size_t token, const float* x, float factor, Element* out) {
  const size_t width = args.head_dim, half = width / 2;
  const Vec::T scale = Vec::set(factor);
  if (!turned) {
    for (size_t h = 0; h < width; h += Vec::kWidth) Vec::store(out + h, Vec::load(x + h) * scale);
    return;
  }
  const float *cos = args.cos + token * half, *sin = args.sin + token * half;
  for (size_t h = 0; h < half; h += Vec::kWidth) {
    const size_t n = std::min(Vec::kWidth, half - h);
    const Vec::T c = Vec::load_first(cos + h, n) * scale, s = Vec::load_first(sin + h, n) * scale;
    const Vec::T a = Vec::load_first(x + h, n), b = Vec::load_first(x + half + h, n);
    Vec::store_first(out + h, a * c + b * s, n);
    Vec::store_first(out + half + h, b * c - a * s, n);
  }
}

template <class Element>
void zero_rows(const AttentionArgs& args, const Heads& out, size_t head, size_t first, size_t end) {
  for (size_t i = first; i < end; ++i)
    std::memset(static_cast<void*>(row_of<Element>(out, i, head)), 0, args.head_dim * sizeof(Element));
}

// ---- softmax of one row ----

constexpr float kLog2E = 1.44269504088896341f;

// Scores s[first, end) → units of e^(scale (s − max)), zeros elsewhere in [begin, stop); returns the sum, and max.
template <class Units>
float softmax_row(const float* s, float scale, size_t first, size_t end, size_t begin, size_t stop,
                  typename Units::Unit* out, float& largest) {
  Vec::T top = Vec::set(-std::numeric_limits<float>::infinity());
  size_t j = first;
  for (; j + Vec::kWidth <= end; j += Vec::kWidth) top = Vec::max(top, Vec::load(s + j));
  float highest = Vec::largest(top);
  if (j < end && j > first) highest = std::max(highest, Vec::largest(Vec::load(s + end - Vec::kWidth)));
  else
    for (; j < end; ++j) highest = std::max(highest, s[j]);
  largest = highest * scale;
  const Vec::T factor = Vec::set(scale * kLog2E), shift = Vec::set(highest);
  Vec::T sum = Vec::set(0.0f);
  for (j = begin; j < stop; j += Vec::kWidth) {
    Vec::T p = exp2_softmax<Units::kPer == 2>((Vec::load(s + j) - shift) * factor);
    if (j < first || j + Vec::kWidth > end) p = Vec::between(p, j, first, end);
    sum = sum + p;
    Units::store(out, j, p);
  }
  return Vec::sum(sum);
}

// The panels that hold the keys of rows [row, row_end): whole panels, so that a product can start at one.
struct KeyRange {
  size_t begin, end;
  KeyRange(const Task& task, size_t row, size_t row_end)
      : begin(task.first_key(row) / kColumnStep * kColumnStep),
        end(std::min(rounded_up(task.end_key(row_end - 1), kColumnStep), task.padded_keys)) {
    if (begin > end) begin = end;
  }
  static constexpr size_t kColumnStep = kPanel > kLanes ? kPanel : kLanes;
  size_t size() const { return end - begin; }
};

// The draws of rows [row, row + rows), columns of the range, (rows, range.size()).
inline void draw(const AttentionArgs& args, const Task& t, size_t head, size_t row, size_t rows, const KeyRange& range,
                 uint16_t* out) {
  dropout_draws(args.dropout.seed, static_cast<uint32_t>(t.start), static_cast<uint32_t>(head), row, rows,
                t.padded_keys, range.begin, range.size(), out);
}

template <class Units, class Element>
struct Attention {
  using Unit = typename Units::Unit;
  static constexpr size_t kPer = Units::kPer;

  struct ForwardScratch {
    Unit *rows, *queries, *keys, *values, *weights;
    float *scores, *sums, *out;
    uint16_t* draws;
    size_t block, bytes;
    ForwardScratch(const Task& t, void* base) {
      Scratch s{static_cast<char*>(base), 0};
      block = block_rows<Units>(kForwardScores, t.rows, t.ld);
      rows = s.take<Unit>(t.padded_keys * t.head_dim / kPer);
      queries = s.take<Unit>(rounded_up(block, kLanes) * t.head_dim / kPer);
      keys = s.take<Unit>(t.padded_keys * t.head_dim / kPer);
      values = s.take<Unit>(t.padded_keys * t.head_dim / kPer);
      weights = s.take<Unit>(block * t.ld / kPer);
      scores = s.take<float>(block * t.ld);
      sums = s.take<float>(block);
      out = s.take<float>(block * t.head_dim);
      draws = s.take<uint16_t>(t.dropping ? block * t.padded_keys : 0);
      bytes = s.used;
    }
  };

  static void forward(const AttentionArgs& args, size_t sequence, size_t head, void* base) {
    const Task t(args, sequence);
    const ForwardScratch w(t, base);
    [[maybe_unused]] const typename Units::Scope scope;
    const size_t width = t.head_dim;
    const bool turned = args.cos != nullptr;
    const float inverse_keep = args.dropout.inverse_keep();
    gather<Units, Element>(args, args.k, turned, head, t.start, t.keys, t.padded_keys, w.rows);
    pack_transposed<Units>(w.rows, width / kPer, t.padded_keys, w.keys);
    gather<Units, Element>(args, args.v, false, head, t.start, t.keys, t.padded_keys, w.rows);
    pack_rows<Units>(w.rows, t.padded_keys, width, w.values);
    for (size_t row = 0; row < t.rows; row += w.block) {
      const size_t count = std::min(w.block, t.rows - row);
      const KeyRange range(t, row, row + count);
      gather<Units, Element>(args, args.q, turned, head, t.start + row, count, count, w.queries);
      multiply<Units, false>({w.queries, width / kPer, 1}, count, w.keys + range.begin * (width / kPer), range.size(),
                             width / kPer, 0, width / kPer, w.scores + range.begin, t.ld);
      if (t.dropping) draw(args, t, head, row, count, range, w.draws);
      for (size_t i = 0; i < count; ++i) {
        const size_t first = t.first_key(row + i), end = t.end_key(row + i);
        float largest = 0.0f, sum = 0.0f;
        if (first < end)
          sum = softmax_row<Units>(w.scores + i * t.ld, args.scale, first, end, range.begin, range.end,
                                   w.weights + i * (t.ld / kPer), largest);
        else
          for (size_t j = range.begin; j < range.end; j += Vec::kWidth)
            Units::store(w.weights + i * (t.ld / kPer), j, Vec::set(0.0f));
        if (t.dropping)
          zero_dropped(Units{}, w.weights + (i * t.ld + range.begin) / kPer, range.size(), w.draws + i * range.size(),
                       args.dropout.threshold);
        w.sums[i] = first < end ? inverse_keep / sum : 0.0f;
        args.lse[head * args.num_tokens + t.start + row + i] = first < end ? largest + std::log(sum) : 0.0f;
      }
      multiply<Units, false>({w.weights + range.begin / kPer, t.ld / kPer, 1}, count, w.values, width,
                             t.padded_keys / kPer, range.begin / kPer, range.size() / kPer, w.out, width);
      for (size_t i = 0; i < count; ++i)
        scatter_row<Element>(args, false, 0, w.out + i * width, w.sums[i],
                             row_of<Element>(args.out, t.start + row + i, head));
    }
  }

  struct BackwardScratch {
    Unit *rows, *queries, *d_out, *queries_packed, *d_out_packed, *keys, *keys_packed, *values;
    Unit *weights, *d_scores, *d_scores_packed;
    float *scores, *d_weights, *dq, *dk, *dv;
    uint16_t* draws;
    size_t block, bytes;
    BackwardScratch(const Task& t, void* base) {
      Scratch s{static_cast<char*>(base), 0};
      block = block_rows<Units>(kBackwardScores, t.rows, t.ld);
      const size_t key_units = t.padded_keys * t.head_dim / kPer,
                   row_units = rounded_up(block, kLanes) * t.head_dim / kPer;
      rows = s.take<Unit>(key_units);
      keys = s.take<Unit>(key_units);
      keys_packed = s.take<Unit>(key_units);
      values = s.take<Unit>(key_units);
      queries = s.take<Unit>(row_units);
      d_out = s.take<Unit>(row_units);
      queries_packed = s.take<Unit>(row_units);
      d_out_packed = s.take<Unit>(row_units);
      scores = s.take<float>(block * t.ld);
      d_weights = s.take<float>(block * t.ld);
      if constexpr (kPer == 1) {  // one layout serves every product
        weights = scores, d_scores = d_scores_packed = d_weights;
      } else {
        weights = s.take<Unit>(block * t.ld / kPer);
        d_scores = s.take<Unit>(block * t.ld / kPer);
        d_scores_packed = s.take<Unit>(block * t.ld / kPer);
      }
      dq = s.take<float>(block * t.head_dim);
      dk = s.take<float>(t.padded_keys * t.head_dim);
      dv = s.take<float>(t.padded_keys * t.head_dim);
      draws = s.take<uint16_t>(t.dropping ? rounded_up(block, 2) * t.padded_keys : 0);
      bytes = s.used;
    }
  };

  // scores → p, in place; returns Σ p do·v, and Σ p, which is 1 up to the rounding of lse
  static float softmax_again_row(float* s, const float* d, float scale, float lse, size_t first, size_t end,
                                 size_t begin, size_t stop, float& total) {
    const Vec::T factor = Vec::set(scale * kLog2E), shift = Vec::set(-lse * kLog2E);
    Vec::T sum = Vec::set(0.0f), weights = Vec::set(0.0f);
    for (size_t j = begin; j < stop; j += Vec::kWidth) {
      Vec::T p = exp2_softmax<kPer == 2>(Vec::fma(Vec::load(s + j), factor, shift));
      if (j < first || j + Vec::kWidth > end) p = Vec::between(p, j, first, end);
      sum = Vec::fma(p, Vec::load(d + j), sum);
      if constexpr (kPer == 1) weights = weights + p;
      Vec::store(s + j, p);
    }
    if constexpr (kPer == 1) total = Vec::sum(weights);
    return Vec::sum(sum);
  }

  // p and ds = p (do·v − Σ p do·v) of kPer rows into the layouts of the products that follow. In float32 p is divided
  // by its sum: the logarithm of a large sum is rounded, and where do·v are nearly equal only that would be left.
  static void lay_out(const BackwardScratch& w, size_t ld, size_t i, const float* means, float total, size_t begin,
                      size_t stop) {
    float *p = w.scores + i * ld, *d = w.d_weights + i * ld;
    [[maybe_unused]] const Vec::T inverse = Vec::set(1.0f / total);
    const Vec::T mean = Vec::set(means[0] / total), odd_mean = Vec::set(means[kPer - 1]);
    for (size_t j = begin; j < stop; j += Vec::kWidth) {
      if constexpr (kPer == 1) {
        const Vec::T weights = Vec::load(p + j) * inverse;
        Vec::store(p + j, weights);
        Vec::store(d + j, weights * (Vec::load(d + j) - mean));
      } else {
        const Vec::T even_p = Vec::load(p + j), even = even_p * (Vec::load(d + j) - mean);
        const Vec::T odd_p = Vec::load(p + ld + j), odd = odd_p * (Vec::load(d + ld + j) - odd_mean);
        Units::store_pair(w.weights + i / kPer * ld + j, even_p, odd_p);
        Units::store_pair(w.d_scores_packed + i / kPer * ld + j, even, odd);
        Units::store(w.d_scores + i * (ld / kPer), j, even);
        Units::store(w.d_scores + (i + 1) * (ld / kPer), j, odd);
      }
    }
  }

  // scores and do·v of a block of rows → p and ds, with the dropped weights at 0; rows behind ``count`` are zeros
  static void softmax_backward(const AttentionArgs& args, const Task& t, const BackwardScratch& w, size_t head,
                               size_t row, size_t count, size_t even, const KeyRange& range) {
    for (size_t pair = 0; pair < even; pair += kPer) {
      float means[kPer], total = 1.0f;
      for (size_t i = pair; i < pair + kPer; ++i) {
        float *s = w.scores + i * t.ld, *d = w.d_weights + i * t.ld;
        const size_t first = t.first_key(row + i), end = t.end_key(row + i);
        means[i - pair] = 0.0f;
        if (t.dropping)
          zero_dropped(Floats{}, d + range.begin, range.size(), w.draws + i * range.size(), args.dropout.threshold);
        if (i < count && first < end) {
          const float lse = args.lse[head * args.num_tokens + t.start + row + i];
          means[i - pair] = softmax_again_row(s, d, args.scale, lse, first, end, range.begin, range.end, total);
        } else {
          std::memset(s + range.begin, 0, range.size() * sizeof(float));
          std::memset(d + range.begin, 0, range.size() * sizeof(float));
        }
      }
      lay_out(w, t.ld, pair, means, total, range.begin, range.end);
      if (t.dropping)
        zero_dropped_units(Units{}, w.weights + pair / kPer * t.ld + range.begin, range.size(),
                           w.draws + pair * range.size(), range.size(), args.dropout.threshold);
    }
  }

  static void backward(const AttentionArgs& args, size_t sequence, size_t head, void* base) {
    const Task t(args, sequence);
    const BackwardScratch w(t, base);
    [[maybe_unused]] const typename Units::Scope scope;
    const size_t width = t.head_dim, units = width / kPer;
    const bool turned = args.cos != nullptr;
    // with z = 0 or 1 / keep: ds = p (z do·v − Σ p z do·v), dv = Σ p z do; 1 / keep is taken out of the sums
    const float inverse_keep = args.dropout.inverse_keep(), scale = args.scale * inverse_keep;
    gather<Units, Element>(args, args.k, turned, head, t.start, t.keys, t.padded_keys, w.rows);
    pack_transposed<Units>(w.rows, units, t.padded_keys, w.keys);
    pack_rows<Units>(w.rows, t.padded_keys, width, w.keys_packed);
    gather<Units, Element>(args, args.v, false, head, t.start, t.keys, t.padded_keys, w.rows);
    pack_transposed<Units>(w.rows, units, t.padded_keys, w.values);
    const bool whole = w.block >= t.rows && t.window < 0;
    if (!whole) {
      std::memset(w.dk, 0, t.padded_keys * width * sizeof(float));
      std::memset(w.dv, 0, t.padded_keys * width * sizeof(float));
    }
    for (size_t row = 0; row < t.rows; row += w.block) {
      const size_t count = std::min(w.block, t.rows - row), even = rounded_up(count, 2);
      const KeyRange range(t, row, row + count);
      gather<Units, Element>(args, args.q, turned, head, t.start + row, count, even, w.queries);
      gather<Units, Element>(args, args.d_out, false, head, t.start + row, count, even, w.d_out);
      pack_rows<Units>(w.queries, even, width, w.queries_packed);
      pack_rows<Units>(w.d_out, even, width, w.d_out_packed);
      multiply<Units, false>({w.queries, units, 1}, count, w.keys + range.begin * units, range.size(), units, 0, units,
                             w.scores + range.begin, t.ld);
      multiply<Units, false>({w.d_out, units, 1}, count, w.values + range.begin * units, range.size(), units, 0, units,
                             w.d_weights + range.begin, t.ld);
      if (t.dropping) draw(args, t, head, row, even, range, w.draws);
      softmax_backward(args, t, w, head, row, count, even, range);
      const Left<Unit> p{w.weights + range.begin, 1, t.ld}, ds{w.d_scores_packed + range.begin, 1, t.ld};
      const size_t depth = even / kPer;
      if (whole) {
        multiply<Units, false>(p, range.size(), w.d_out_packed, width, depth, 0, depth, w.dv, width);
        multiply<Units, false>(ds, range.size(), w.queries_packed, width, depth, 0, depth, w.dk, width);
      } else {
        multiply<Units, true>(p, range.size(), w.d_out_packed, width, depth, 0, depth, w.dv + range.begin * width,
                              width);
        multiply<Units, true>(ds, range.size(), w.queries_packed, width, depth, 0, depth, w.dk + range.begin * width,
                              width);
      }
      multiply<Units, false>({w.d_scores + range.begin / kPer, t.ld / kPer, 1}, count, w.keys_packed, width,
                             t.padded_keys / kPer, range.begin / kPer, range.size() / kPer, w.dq, width);
      for (size_t i = 0; i < count; ++i) {
        const size_t token = t.start + row + i;
        scatter_row<Element>(args, turned, token, w.dq + i * width, scale, row_of<Element>(args.dq, token, head));
      }
    }
    for (size_t j = 0; j < t.keys; ++j) {
      const size_t token = t.start + j;
      scatter_row<Element>(args, turned, token, w.dk + j * width, scale, row_of<Element>(args.dk, token, head));
      scatter_row<Element>(args, false, token, w.dv + j * width, inverse_keep, row_of<Element>(args.dv, token, head));
    }
    zero_rows<Element>(args, args.dk, head, t.start + t.keys, t.start + t.rows);
    zero_rows<Element>(args, args.dv, head, t.start + t.keys, t.start + t.rows);
  }

  static size_t forward_bytes(const AttentionArgs& args, size_t sequence) {
    return ForwardScratch(Task(args, sequence), nullptr).bytes;
  }
  static size_t backward_bytes(const AttentionArgs& args, size_t sequence) {
    return BackwardScratch(Task(args, sequence), nullptr).bytes;
  }
  static constexpr AttentionKernel kKernel{&forward_bytes, &backward_bytes, &forward, &backward};
};

}  // namespace
}  // namespace fastbert
