#include "cpu/loss.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "twins.h"

TEST_CASE("loss: cross-entropy and its gradient, on every instruction set, at any width") {
  for (const auto isa : fastbert::available_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    fastbert::set_current_isa(fastbert::isa_name(isa));
    for (size_t vocab_size : {1, 2, 15, 16, 17, 31, 33, 100, 1030}) {
      const size_t columns = vocab_size + 3, rows = 3;
      std::vector<float> logits(rows * columns), bias(vocab_size), losses(rows, NAN);
      const std::vector<float> weights{1.0f, 1.0f, 2.5f};
      for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 37 % 19) - 9.0f;
      for (size_t j = 0; j < vocab_size; ++j) bias[j] = static_cast<float>(j % 5) * 0.25f;
      const std::vector<int64_t> labels{0, fastbert::kNoLabel, static_cast<int64_t>(vocab_size) - 1};
      std::vector<float> out = logits;
      fastbert::LossArgs args;
      args.logits = out.data(), args.bias = bias.data(), args.labels = labels.data(), args.weights = weights.data();
      args.losses = losses.data(), args.rows = rows, args.columns = columns, args.vocab_size = vocab_size;
      args.factor = 0.5f, args.gradient = true;
      fastbert::cross_entropy(args, false, 2);
      for (size_t i = 0; i < rows; ++i) {
        double sum = 0;
        for (size_t j = 0; j < vocab_size; ++j) sum += std::exp(double{logits[i * columns + j]} + bias[j]);
        const bool asked = labels[i] != fastbert::kNoLabel;
        const auto label = static_cast<size_t>(asked ? labels[i] : 0);
        const double loss = std::log(sum) - logits[i * columns + label] - bias[label];
        CHECK(losses[i] == doctest::Approx(asked ? weights[i] * loss : 0.0).epsilon(1e-5));
        for (size_t j = 0; j < columns; ++j) {
          double gradient = 0;
          if (asked && j < vocab_size)
            gradient = 0.5 * weights[i] *
                       (std::exp(double{logits[i * columns + j]} + bias[j]) / sum - (j == label ? 1.0 : 0.0));
          REQUIRE(std::fabs(out[i * columns + j] - gradient) < 1e-6);
        }
      }
    }
  }
  fastbert::set_current_isa("auto");
}

TEST_CASE("loss: in bf16 every instruction set gives what the plain loop gives") {
  using fastbert::Bf16;
  for (size_t vocab_size : {1, 15, 17, 100, 1030}) {
    CAPTURE(vocab_size);
    const size_t columns = vocab_size + 3, rows = 2;
    const auto logits = fastbert::numbers<Bf16>(rows * columns, 1);
    const std::vector<int64_t> labels{0, static_cast<int64_t>(vocab_size) - 1};
    std::vector<Bf16> plain;
    std::vector<float> plain_losses;
    for (const auto isa : fastbert::available_isas()) {  // the plain loop is the first
      CAPTURE(fastbert::isa_name(isa));
      fastbert::set_current_isa(fastbert::isa_name(isa));
      std::vector<Bf16> out = logits;
      std::vector<float> losses(rows);
      fastbert::LossArgs args;
      args.logits = out.data(), args.labels = labels.data(), args.losses = losses.data();
      args.rows = rows, args.columns = columns, args.vocab_size = vocab_size;
      args.factor = 100.0f, args.gradient = true;
      fastbert::cross_entropy(args, true, 1);
      if (plain.empty()) plain = out, plain_losses = losses;
      CHECK(fastbert::difference(out, plain) <= fastbert::kTwinsDiffer<Bf16>);
      CHECK(fastbert::difference(losses, plain_losses) <= 1e-4);
    }
  }
  fastbert::set_current_isa("auto");
}
