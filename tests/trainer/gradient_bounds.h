// How far rounding may carry the loss and the gradients of one micro-batch from FP64.
#pragma once

#include <map>
#include <string>

#include "tests/support/reference_model.h"
#include "trainer/config/model_config.h"

namespace qstep::trainer::testing {

// The bound. How far rounding carries is a property of model and data, and the reference can
// measure it: it runs again with every stored value and every sum off by as much as the precision
// allows, at random. The largest change of a tensor's elements over a few such runs, times a
// factor, bounds the error of the product, which rounds the same values once each, in an order of
// its own.
struct GradientBounds {
  test::ReferenceResult exact;
  double loss = 0, norm = 0;
  std::map<std::string, double> grads;  // by weight, of each element
};

// store: the roundoff of the compute type.
GradientBounds gradient_bounds(const ModelConfig& model, const test::Weights& weights,
                               const test::Batch& batch, double store);

// Records the worst error over its bound as a property of the test.
void expect_within(const GradientBounds& bounds, float loss, float norm,
                   const test::Weights& grads);

}  // namespace qstep::trainer::testing
