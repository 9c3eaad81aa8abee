// The self-test on one backend after another, for `qstep selftest`.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/quantizers/self_test.h"

namespace qstep::trainer {

struct SelfTestRow {
  SelfTestCase test;
  SelfTestResult result;
};

struct DeviceSelfTest {
  std::string device;   // "cpu", or what the driver calls the GPU; "gpu" where there is none
  std::string not_run;  // why there is none; empty: it was tested
  std::vector<SelfTestRow> rows;

  size_t n_passed() const;
};

// The quantizers of these recipes, each once.
std::vector<SelfTestCase> self_test_cases(std::span<const std::string> recipes);

DeviceSelfTest self_test_on(std::string_view device, std::span<const SelfTestCase> cases,
                            const QuantizeFunction& quantize);
DeviceSelfTest self_test_cpu(std::span<const SelfTestCase> cases);
// Not run where this build or machine has no GPU backend.
DeviceSelfTest self_test_gpu(std::span<const SelfTestCase> cases);

// Throws the Error (self-test) of the first quantizer that failed; on a GPU it begins with its
// name.
void require_passed(const DeviceSelfTest& test);

}  // namespace qstep::trainer
