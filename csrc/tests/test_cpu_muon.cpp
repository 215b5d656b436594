#include "cpu/muon.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "cpu/isa.h"

namespace {

using Matrix = std::vector<double>;  // row by row

Matrix product(const Matrix& a, const Matrix& b, size_t rows, size_t depth, size_t columns) {
  Matrix out(rows * columns);
  for (size_t i = 0; i < rows; ++i)
    for (size_t k = 0; k < depth; ++k)
      for (size_t j = 0; j < columns; ++j) out[i * columns + j] += a[i * depth + k] * b[k * columns + j];
  return out;
}

Matrix transposed(const Matrix& a, size_t rows, size_t columns) {
  Matrix out(a.size());
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j) out[j * rows + i] = a[i * columns + j];
  return out;
}

// X after the iterations, by the definition; rows <= columns.
Matrix orthogonalised(Matrix x, size_t rows, size_t columns, const fastbert::MuonStep& s) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  for (double& v : x) v /= std::sqrt(squares);
  for (int n = 0; n < s.iterations; ++n) {
    const Matrix gram = product(x, transposed(x, rows, columns), rows, columns, rows);
    Matrix quintic = product(gram, gram, rows, rows, rows);
    for (size_t i = 0; i < gram.size(); ++i) quintic[i] = double{s.b} * gram[i] + double{s.c} * quintic[i];
    const Matrix turned = product(quintic, x, rows, rows, columns);
    for (size_t i = 0; i < x.size(); ++i) x[i] = double{s.a} * x[i] + turned[i];
  }
  return x;
}

}  // namespace

TEST_CASE("muon: one step, on every instruction set, standing and lying, at any size") {
  const fastbert::MuonStep step{0.9f, 0.5f, 3.4445f, -4.7750f, 2.0315f, 5};
  const std::vector<std::pair<size_t, size_t>> shapes{{1, 1}, {1, 17}, {17, 1}, {5, 70}, {70, 5}, {33, 47}, {66, 66}};
  for (const auto isa : fastbert::available_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    fastbert::set_current_isa(fastbert::isa_name(isa));
    for (const auto& [rows, columns] : shapes)
      for (const bool bf16 : {false, true}) {
        CAPTURE(rows);
        CAPTURE(columns);
        const size_t count = rows * columns;
        std::mt19937 random(7);
        std::vector<float> grad(count), weights(count, 1.0f), momentum(count, 0.25f);
        std::vector<fastbert::Bf16> image(count);
        Matrix direction(count);
        for (size_t i = 0; i < count; ++i) {
          grad[i] = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;  // of full rank: what is 0 stays undecided
          const double m = 0.25 + (1.0 - double{step.momentum}) * (grad[i] - 0.25);
          direction[i] = grad[i] + double{step.momentum} * (m - grad[i]);
        }
        fastbert::muon_update({{grad.data(), weights.data(), momentum.data(), image.data(), rows, columns, -0.5f}},
                              step, bf16, 2);
        const bool lying = rows <= columns;
        Matrix x = orthogonalised(lying ? direction : transposed(direction, rows, columns), std::min(rows, columns),
                                  std::max(rows, columns), step);
        if (!lying) x = transposed(x, columns, rows);
        double error = 0, size = 0;
        for (size_t i = 0; i < count; ++i) {
          error += std::pow(weights[i] - (0.5 - 0.5 * x[i]), 2);
          size += std::pow(0.5 * x[i], 2);
          CHECK(fastbert::to_bf16(weights[i]).bits == image[i].bits);
        }
        // bf16 on its own is some three roundings off; small singular values grow 3.4 times a round, errors with them
        CHECK(std::sqrt(error) <= (bf16 ? 0.05 : 1e-3) * std::sqrt(size));
      }
  }
  fastbert::set_current_isa("auto");
  fastbert::muon_update({}, step, true, 2);
}
