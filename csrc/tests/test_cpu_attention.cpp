#include "cpu/attention.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "twins.h"

using fastbert::AttentionArgs;
using fastbert::AttentionSequence;
using fastbert::numbers;

namespace {

struct Case {
  std::vector<AttentionSequence> sequences;
  size_t tokens, heads, head_dim;
  int64_t window;
};

// The formula of attention.h in double, one sequence and head at a time.
std::vector<double> plain_attention(const Case& c, const std::vector<float>& q, const std::vector<float>& k,
                                    const std::vector<float>& v, double scale) {
  std::vector<double> out(q.size());
  const auto at = [&](size_t token, size_t head, size_t h) { return (token * c.heads + head) * c.head_dim + h; };
  for (const AttentionSequence& s : c.sequences)
    for (size_t head = 0; head < c.heads; ++head)
      for (size_t i = 0; i < s.rows; ++i) {
        double sum = 0;
        std::vector<double> row(c.head_dim);
        for (size_t j = 0; j < s.keys; ++j) {
          const auto distance = static_cast<int64_t>(i > j ? i - j : j - i);
          if (c.window >= 0 && distance > c.window) continue;
          double score = 0;
          for (size_t h = 0; h < c.head_dim; ++h)
            score += static_cast<double>(q[at(s.start + i, head, h)]) * k[at(s.start + j, head, h)];
          const double p = std::exp(score * scale);
          sum += p;
          for (size_t h = 0; h < c.head_dim; ++h) row[h] += p * v[at(s.start + j, head, h)];
        }
        for (size_t h = 0; h < c.head_dim; ++h) out[at(s.start + i, head, h)] = sum > 0 ? row[h] / sum : 0.0;
      }
  return out;
}

}  // namespace

TEST_CASE("attention: the formula, on every instruction set, at odd lengths, with windows and unseen keys") {
  const std::vector<Case> cases = {
      {{{0, 1, 1}, {1, 17, 17}, {18, 0, 0}, {18, 63, 63}}, 81, 2, 16, -1},
      {{{0, 129, 129}}, 129, 1, 64, -1},
      {{{0, 40, 23}, {40, 5, 0}}, 45, 3, 32, -1},
      {{{0, 200, 200}, {200, 33, 30}}, 233, 1, 48, 5},
      {{{0, 20, 20}}, 20, 1, 128, 0},
  };
  for (const auto isa : fastbert::available_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    fastbert::set_current_isa(fastbert::isa_name(isa));
    for (const Case& c : cases) {
      const size_t size = c.tokens * c.heads * c.head_dim;
      std::vector<float> q = numbers(size, 1), k = numbers(size, 2), v = numbers(size, 3), d_out = numbers(size, 4);
      std::vector<float> out(size, NAN), lse(c.tokens * c.heads, NAN), dq(size, NAN), dk(size, NAN), dv(size, NAN);
      AttentionArgs args;
      const auto heads = [&](std::vector<float>& x) {
        return fastbert::Heads{x.data(), static_cast<int64_t>(c.heads * c.head_dim), static_cast<int64_t>(c.head_dim)};
      };
      args.q = heads(q), args.k = heads(k), args.v = heads(v), args.out = heads(out), args.d_out = heads(d_out);
      args.dq = heads(dq), args.dk = heads(dk), args.dv = heads(dv), args.lse = lse.data();
      args.sequences = c.sequences.data(), args.num_sequences = c.sequences.size();
      args.num_heads = c.heads, args.num_tokens = c.tokens, args.head_dim = c.head_dim;
      args.window = c.window, args.scale = 0.2f;
      fastbert::attention_forward(args, false, 2);
      const auto exact = plain_attention(c, q, k, v, 0.2);
      for (size_t i = 0; i < size; ++i) REQUIRE(out[i] == doctest::Approx(exact[i]).epsilon(1e-5));

      // the gradient along a random direction of each input, against a difference quotient
      fastbert::attention_backward(args, false, 2);
      const auto loss = [&](const std::vector<double>& y) {
        double sum = 0;
        for (size_t i = 0; i < size; ++i) sum += y[i] * static_cast<double>(d_out[i]);
        return sum;
      };
      for (auto* input : {&q, &k, &v}) {
        const std::vector<float>& gradient = input == &q ? dq : input == &k ? dk : dv;
        const std::vector<float> direction = numbers(size, 5), before = *input;
        double slope = 0;
        for (size_t i = 0; i < size; ++i) slope += static_cast<double>(gradient[i]) * static_cast<double>(direction[i]);
        double values[2];
        for (int side : {0, 1}) {
          for (size_t i = 0; i < size; ++i) (*input)[i] = before[i] + (side ? 1e-3f : -1e-3f) * direction[i];
          values[side] = loss(plain_attention(c, q, k, v, 0.2));
        }
        *input = before;
        CHECK(slope == doctest::Approx((values[1] - values[0]) / 2e-3).epsilon(2e-3));
      }
    }
  }
  fastbert::set_current_isa("auto");
}

namespace {

// Output, log-sum-exp and gradients of fused-looking tensors with rotary angles and dropout, one after another.
template <class E>
std::vector<std::vector<double>> attended(const Case& c) {
  const size_t size = c.tokens * c.heads * c.head_dim, angles = c.tokens * c.head_dim / 2;
  std::vector<E> x[] = {numbers<E>(size, 1),  numbers<E>(size, 2),  numbers<E>(size, 3),  numbers<E>(size, 4),
                        std::vector<E>(size), std::vector<E>(size), std::vector<E>(size), std::vector<E>(size)};
  std::vector<float> lse(c.tokens * c.heads), cos(angles), sin(angles);
  for (size_t i = 0; i < angles; ++i) cos[i] = std::cos(0.1f * i), sin[i] = std::sin(0.1f * i);
  AttentionArgs args;
  fastbert::Heads* heads[] = {&args.q, &args.k, &args.v, &args.d_out, &args.out, &args.dq, &args.dk, &args.dv};
  for (int i = 0; i < 8; ++i)
    *heads[i] = {x[i].data(), static_cast<int64_t>(c.heads * c.head_dim), static_cast<int64_t>(c.head_dim)};
  args.lse = lse.data(), args.cos = cos.data(), args.sin = sin.data();
  args.sequences = c.sequences.data(), args.num_sequences = c.sequences.size();
  args.num_heads = c.heads, args.num_tokens = c.tokens, args.head_dim = c.head_dim;
  args.window = c.window, args.scale = 0.2f;
  args.dropout = {5, fastbert::dropout_threshold(0.2f)};
  constexpr bool kBf16 = sizeof(E) < sizeof(float);
  fastbert::attention_forward(args, kBf16, 2);
  fastbert::attention_backward(args, kBf16, 2);
  std::vector<std::vector<double>> results{{lse.begin(), lse.end()}};
  for (int i = 4; i < 8; ++i) {
    results.emplace_back();
    for (const E value : x[i]) results.back().push_back(static_cast<double>(fastbert::to_float(value)));
  }
  return results;
}

// Relative errors by norms: bf16's units round the weights, too.
template <class E>
void compare_with_plain(const Case& c, double allowed) {
  fastbert::set_current_isa("scalar");
  const auto plain = attended<E>(c);
  for (const auto isa : fastbert::vector_isas()) {
    CAPTURE(fastbert::isa_name(isa));
    fastbert::set_current_isa(fastbert::isa_name(isa));
    const auto found = attended<E>(c);
    for (size_t i = 0; i < plain.size(); ++i) {
      double error = 0, size = 0;
      for (size_t j = 0; j < plain[i].size(); ++j) {
        error += std::pow(found[i][j] - plain[i][j], 2);
        size += std::pow(plain[i][j], 2);
      }
      CAPTURE(i);
      CHECK(std::sqrt(error) <= allowed * std::sqrt(size));
    }
  }
  fastbert::set_current_isa("auto");
}

}  // namespace

TEST_CASE("attention: with rotary angles and dropout every instruction set gives what the plain loops give") {
  const std::vector<Case> cases = {
      {{{0, 1, 1}, {1, 17, 17}, {18, 63, 60}}, 81, 2, 16, -1},
      {{{0, 150, 150}}, 150, 1, 48, 7},
      {{{0, 64, 64}}, 64, 2, 64, -1},
  };
  for (const Case& c : cases) {
    compare_with_plain<float>(c, 1e-5);
    compare_with_plain<fastbert::Bf16>(c, 1e-2);
  }
}
