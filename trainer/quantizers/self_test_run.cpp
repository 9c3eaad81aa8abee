#include "trainer/quantizers/self_test_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "trainer/config/recipe_file.h"
#include "trainer/quantizers/host_tensors.h"

namespace qstep::trainer {

namespace {
constexpr std::string_view kCpu = "cpu";
}

size_t DeviceSelfTest::n_passed() const {
  return static_cast<size_t>(std::count_if(
      rows.begin(), rows.end(), [](const SelfTestRow& row) { return row.result.failure.empty(); }));
}

std::vector<SelfTestCase> self_test_cases(std::span<const std::string> recipes) {
  std::vector<SelfTestCase> all;
  for (const std::string& name : recipes) {
    for (const SelfTestCase& test : self_test_cases(load_recipe(name))) {
      if (std::find(all.begin(), all.end(), test) == all.end()) all.push_back(test);
    }
  }
  return all;
}

DeviceSelfTest self_test_on(std::string_view device, std::span<const SelfTestCase> cases,
                            const QuantizeFunction& quantize) {
  DeviceSelfTest run{.device = std::string(device), .not_run = {}, .rows = {}};
  for (const SelfTestCase& test : cases) run.rows.push_back({test, run_self_test(test, quantize)});
  return run;
}

DeviceSelfTest self_test_cpu(std::span<const SelfTestCase> cases) {
  const std::unique_ptr<ops::Ops> ops = ops::make_cpu_ops();
  return self_test_on(kCpu, cases, quantize_on_host(*ops));
}

DeviceSelfTest self_test_gpu(std::span<const SelfTestCase> cases) {
  std::string why;
  const std::unique_ptr<ops::Ops> ops = ops::make_cuda_ops(why);
  if (ops == nullptr) return {.device = "gpu", .not_run = why, .rows = {}};
  return self_test_on(ops->name(), cases, quantize_on_host(*ops));
}

void require_passed(const DeviceSelfTest& test) {
  for (const SelfTestRow& row : test.rows) {
    if (row.result.failure.empty()) continue;
    const std::string text = refusal(row.test, row.result);
    throw ops::Error(ops::ExitCode::kSelfTest,
                     test.device == kCpu ? text : fmt::format("{}: {}", test.device, text));
  }
}

}  // namespace qstep::trainer
