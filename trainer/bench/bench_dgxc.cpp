#include "trainer/bench/bench_dgxc.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ops/error.h"
#include "trainer/bench/bench_step.h"

namespace qstep::trainer {

namespace {

// Of each step the longest time of any rank.
std::vector<double> slowest(const std::vector<double>& own, parallel::Comm& world) {
  std::vector<double> ms = own;
  for (const std::string& text : parallel::all_gather_text(world, nlohmann::json(own).dump())) {
    const auto others = nlohmann::json::parse(text).get<std::vector<double>>();
    for (size_t i = 0; i < ms.size(); ++i) ms[i] = std::max(ms[i], others.at(i));
  }
  return ms;
}

}  // namespace

double dgxc_mean(std::span<const double> step_ms) {
  ops::check_equal(kDgxcSteps, static_cast<int64_t>(step_ms.size()), "dgxc: steps");
  return mean(step_ms.subspan(kDgxcFirst - 1, kDgxcLast - kDgxcFirst + 1));
}

DgxcResult bench_dgxc(const Config& config, parallel::Comm& world) {
  StepBench bench(config, world);
  DgxcResult result;
  for (int64_t step = 0; step < kDgxcSteps; ++step) result.step_ms.push_back(bench.time());
  result.step_ms = slowest(result.step_ms, world);
  result.s_per_iteration = 1e-3 * dgxc_mean(result.step_ms);
  const int64_t tokens = config.train.global_batch * config.train.seq_len;
  result.tokens_per_s = static_cast<double>(tokens) / world.size() / result.s_per_iteration;
  const auto flops = [&](AttentionCount count) {
    return flops_per_token(config.model, config.train.seq_len, count) * result.tokens_per_s;
  };
  result.causal_flops_per_s = flops(AttentionCount::kCausal);
  result.full_flops_per_s = flops(AttentionCount::kFull);
  return result;
}

}  // namespace qstep::trainer
