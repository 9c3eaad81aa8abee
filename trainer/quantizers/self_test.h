// The self-test of the quantizers: each one that a recipe uses runs on a fixed tensor, in the
// orientation in which it is used, and must give the bits of the plain computation
// (ops/quantize/quantize_scalar.h), whose own bits must be those of self_test_golden.h. A
// processor, a compiler or a build that computes something else trains another model without a
// word; here it is refused (code 32).
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "ops/quantize/quantize.h"
#include "precision/recipe.h"
#include "trainer/quantizers/self_test_golden.h"

namespace qstep::trainer {

// One quantizer in one orientation.
struct SelfTestCase {
  precision::QuantSpec spec;
  ops::Orientation orientation = ops::Orientation::kRowwise;
  // With spec.source = kForward: the rowwise quantizer whose result is quantized. With `together`:
  // the one of the same call, which shares the decoded values where precision::transposable.
  precision::QuantSpec rowwise = {};
  bool together = false;
  friend bool operator==(const SelfTestCase&, const SelfTestCase&) = default;
};

// "nvfp4 1x16 stochastic hadamard-16", "... of nvfp4 1x16", "... beside nvfp4 1x16"
std::string describe(const SelfTestCase& test);

// Every quantizer of any layer at any step, each once, alone and with each other one of the tensor.
std::vector<SelfTestCase> self_test_cases(const precision::Recipe& recipe);

// What is tested: Ops::quantize, on memory of the host.
using QuantizeFunction =
    std::function<void(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                       const ops::Tensor& x, const ops::QuantCall& call)>;

struct SelfTestResult {
  int64_t elements = 0;
  bool golden = false;  // there was a stored checksum to compare with
  double ms = 0;
  std::string failure;  // what was expected where, and what was found; empty: passed
};

// From a BF16 tensor: no recipe that quantizes computes in another type.
SelfTestResult run_self_test(const SelfTestCase& test, const QuantizeFunction& quantize,
                             std::span<const GoldenChecksum> golden = golden_checksums());

// Throws an Error (self-test) that names the quantizer, the element, what was expected, what was
// found, and what to do, unless every quantizer of the recipe passes.
void require_self_test(const precision::Recipe& recipe, const QuantizeFunction& quantize);

// The text of that Error.
std::string refusal(const SelfTestCase& test, const SelfTestResult& result);

// ---- the fixed inputs, for the test that checks the stored checksums -------------------------

inline constexpr int64_t kSelfTestRows = 128, kSelfTestCols = 640;

// [kSelfTestRows, kSelfTestCols] values that BF16 holds: magnitudes over many binades, blocks of
// zeros, of -0, of equal and of tiny values, an outlier.
std::vector<float> self_test_source();
ops::QuantRandom self_test_random();
inline constexpr float kSelfTestDelayedScale = 96.0f;

// XXH3-128 of codes, block scales, tile scales and the tensor's scale, one after another.
std::string self_test_checksum(const ops::EncodedTensor& e);

}  // namespace qstep::trainer
