#include "trainer/run/metrics.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "trainer/machine/rank_peaks.h"

namespace qstep::trainer {

namespace {

// The step of the last evaluation that stays.
int64_t drop_after(const std::string& path, int64_t last_step) {
  int64_t last_eval_step = 0;
  keep_rows(path, last_step, [&](const nlohmann::json& row, int64_t step) {
    if (type_of_row(row) == "eval") last_eval_step = step;
  });
  return last_eval_step;
}

}  // namespace

MetricsFile::MetricsFile(const std::string& path, int64_t last_step)
    : last_eval_step_(drop_after(path, last_step)), lines_(path) {}

void MetricsFile::run(const RunRow& row) {
  lines_.open("run", row.first_step);
  lines_.put("schema", kMetricsSchema);
  lines_.put("time_unix_s", static_cast<int64_t>(std::time(nullptr)));
  lines_.put("config_hash", row.config_hash);
  lines_.put("recipe", row.recipe);
  lines_.put("emulated", row.emulated);
  lines_.put("ranks", row.ranks);
  lines_.put("tensor", row.tensor);
  lines_.put("n_parameters", row.n_parameters);
  lines_.put("flops_per_token_causal", row.flops_per_token);
  lines_.put("peak_machine", row.machine.name);
  lines_.put("peak_source", peaks_source(row.machine));
  lines_.open_object("peak_flops_per_s");
  for (size_t i = 0; i < row.machine.products.size(); ++i) {
    const double peak = row.machine.products[i].peak;
    if (peak > 0) lines_.put(kProductFormatNames[i], peak);
  }
  lines_.close_object();
  lines_.put("peak_memory_bytes_per_s", row.machine.memory.peak);
  lines_.append();
}

void MetricsFile::facts(int64_t first_step, const std::vector<FactGroup>& groups) {
  lines_.open("facts", first_step);
  for (const FactGroup& group : groups) {
    lines_.open_object(group.name);
    for (const auto& [name, value] : group.facts) lines_.put(name, std::string_view(value));
    lines_.close_object();
  }
  lines_.append();
}

void MetricsFile::step(const StepRow& row) {
  lines_.open("step", row.step);
  lines_.put("loss", row.loss);
  lines_.put("lr", row.lr);
  lines_.put("grad_norm", row.grad_norm);
  lines_.put("step_ms", row.step_ms);
  lines_.put("tokens", row.tokens);
  lines_.put("tokens_total", row.tokens_total);
  lines_.put("tokens_per_s", row.tokens_per_s);
  lines_.put("model_flops_per_s", row.model_flops_per_s);
  lines_.put("tflops_causal", row.tflops_causal);
  lines_.put("mfu_bf16", row.mfu_bf16);
  lines_.put("sol", row.sol);
  lines_.put("peak_rss_bytes", row.peak_rss_bytes);
  lines_.put("skipped", row.skipped);
  if (row.non_finite_input.empty()) {
    lines_.put_null("non_finite_input");
  } else {
    lines_.put("non_finite_input", row.non_finite_input);
  }
  lines_.open_object("phases_ms");
  for (size_t i = 0; i < kPhaseNames.size(); ++i) lines_.put(kPhaseNames[i], row.phases_ms[i]);
  lines_.close_object();
  if (row.breakdown_ms) {
    lines_.open_object("breakdown_ms");
    for (size_t i = 0; i < kCategoryNames.size(); ++i) {
      const double ms = (*row.breakdown_ms)[i];
      if (ms != 0) lines_.put(kCategoryNames[i], ms);
    }
    lines_.close_object();
  }
  if (row.host_ms) lines_.put("host_ms", *row.host_ms);
  if (row.comm_exposed_ms) lines_.put("comm_exposed_ms", *row.comm_exposed_ms);
  lines_.put("comm_busy_ms", row.comm_busy_ms);
  lines_.put("comm_bytes", row.comm_bytes);
  if (!row.tags.empty()) lines_.put_texts("tags", row.tags);
  lines_.append();
}

void MetricsFile::eval(const EvalRow& row) {
  lines_.open("eval", row.step);
  lines_.put("loss", row.loss);
  lines_.put("bits_per_byte", row.bits_per_byte);
  lines_.put("tokens", row.tokens);
  lines_.put("eval_ms", row.eval_ms);
  lines_.put("precision", row.precision);
  lines_.append();
  last_eval_step_ = row.step;
}

void MetricsFile::checkpoint(const CheckpointRow& row) {
  lines_.open("checkpoint", row.step);
  lines_.put("save_ms", row.save_ms);
  lines_.put("path", row.path);
  lines_.append();
}

}  // namespace qstep::trainer
