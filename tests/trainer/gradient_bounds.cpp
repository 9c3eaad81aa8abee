#include "tests/trainer/gradient_bounds.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/support/compare.h"

namespace qstep::trainer::testing {

namespace {

constexpr int kTrials = 6;
constexpr double kFactor = 4;

double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double v : x) most = std::max(most, std::fabs(v));
  return most;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

}  // namespace

GradientBounds gradient_bounds(const ModelConfig& model, const test::Weights& weights,
                               const test::Batch& batch, double store) {
  GradientBounds b;
  b.exact = test::reference_forward_backward(model, weights, batch);
  for (int trial = 0; trial < kTrials; ++trial) {
    const test::ReferenceResult rounded = test::reference_forward_backward(
        model, weights, batch,
        test::Rounding(test::kF32Roundoff, store, 100 + static_cast<uint64_t>(trial)));
    b.loss = std::max(b.loss, std::fabs(rounded.loss - b.exact.loss));
    for (const auto& [name, grad] : b.exact.grads) {
      double& bound = b.grads[name];
      bound = std::max(bound, largest_difference(rounded.grads.at(name).v, grad.v));
    }
  }
  b.loss = kFactor * std::max(b.loss, test::kF32Roundoff * b.exact.loss);
  double squares = 0;
  for (const auto& [name, grad] : b.exact.grads) {
    double& bound = b.grads[name];
    // No bound may be so wide that it says nothing.
    EXPECT_LT(kFactor * bound, 0.5 * largest(grad.v)) << name;
    bound = kFactor * std::max(bound, test::kF32Roundoff * largest(grad.v));
    for (const double g : grad.v) squares += g * g;
  }
  b.norm = 64 * store * std::sqrt(squares);
  return b;
}

void expect_within(const GradientBounds& b, float loss, float norm, const test::Weights& grads) {
  EXPECT_NEAR(b.exact.loss, static_cast<double>(loss), b.loss);
  double worst = std::fabs(b.exact.loss - static_cast<double>(loss)) / b.loss;
  double squares = 0;
  for (const auto& [name, grad] : b.exact.grads) {
    const std::vector<double>& found = grads.at(name).v;
    test::expect_within(grad.v, found, test::Bound{0, b.grads.at(name)}, name);
    worst = std::max(worst, largest_difference(grad.v, found) / b.grads.at(name));
    for (const double g : grad.v) squares += g * g;
  }
  EXPECT_NEAR(std::sqrt(squares), static_cast<double>(norm), b.norm);
  ::testing::Test::RecordProperty("worst_error_over_bound", fmt::format("{:.3f}", worst));
}

}  // namespace qstep::trainer::testing
