// The checksums of the self-test: what every quantizer of the recipes in recipes/ makes of
// self_test_source(). tests/trainer/self_test_test.cpp computes each line anew with the tests'
// reference and prints those that are missing or wrong.
#pragma once

#include <span>
#include <string_view>

#include "ops/quantized_tensor.h"

namespace qstep::trainer {

struct GoldenChecksum {
  std::string_view spec;  // precision::describe
  ops::Orientation orientation;
  std::string_view xxh3_128;
};

std::span<const GoldenChecksum> golden_checksums();

}  // namespace qstep::trainer
