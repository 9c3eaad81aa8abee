// metrics.jsonl, row by row. trainer/run/README.md documents every field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/base/json_lines.h"
#include "trainer/machine/machines.h"
#include "trainer/run/run_facts.h"
#include "trainer/timing/breakdown.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

inline constexpr int kMetricsSchema = 1;

struct RunRow {
  int64_t first_step = 1;
  std::string config_hash, recipe;
  bool emulated = false;  // a format of the recipe is
  int64_t ranks = 1;
  int64_t tensor = 1;  // of them in a tensor group
  int64_t n_parameters = 0;
  double flops_per_token = 0;  // causal attention
  MachineModel machine = {};   // of a rank: what its steps are held against; without rates: unknown
};

struct StepRow {
  int64_t step = 0;  // from 1
  float loss = 0;
  double lr = 0;
  float grad_norm = 0;
  double step_ms = 0;
  int64_t tokens = 0;        // target positions of this step
  int64_t tokens_total = 0;  // of the run so far
  double tokens_per_s = 0;
  double model_flops_per_s = 0;  // causal attention
  // Of a rank (utilisation.h); NaN where the peak is not known.
  double tflops_causal = 0, mfu_bf16 = 0, sol = 0;
  int64_t peak_rss_bytes = 0;
  bool skipped = false;
  std::string non_finite_input;  // "blocks.3.down dy", the first such; empty: none
  PhaseTimes phases_ms{};
  std::optional<Breakdown> breakdown_ms;  // zeros are left out of the row
  std::optional<double> host_ms;          // Timeline::host_ms
  std::optional<double> comm_exposed_ms;
  double comm_busy_ms = 0;  // between ranks, beside the computation or not; this rank's
  int64_t comm_bytes = 0;   // sent by this rank
  // Why the step is no measure of the others: "profiler", it was traced.
  std::vector<std::string_view> tags = {};
};

struct EvalRow {
  int64_t step = 0;
  double loss = 0;           // mean over the validation targets, nats
  double bits_per_byte = 0;  // NaN when the store does not know its bytes
  int64_t tokens = 0;
  double eval_ms = 0;
  std::string precision;  // what it was computed in: "nvfp4 emulated"
};

struct CheckpointRow {
  int64_t step = 0;
  double save_ms = 0;
  std::string path;
};

class MetricsFile {
 public:
  // Keeps what the file says of steps up to `last_step` and drops the rest (a resumed run writes
  // those steps again), a torn last line included. last_step 0 begins anew.
  MetricsFile(const std::string& path, int64_t last_step);

  // The run's header, once per start: what a reader needs to interpret the rows.
  void run(const RunRow& row);
  // Behind it: what it runs on.
  void facts(int64_t first_step, const std::vector<FactGroup>& groups);
  void step(const StepRow& row);
  void eval(const EvalRow& row);
  void checkpoint(const CheckpointRow& row);

  // The step of the last evaluation in the file; 0 when there is none.
  int64_t last_eval_step() const { return last_eval_step_; }
  // Every row so far is durable when this returns.
  void sync() const { lines_.sync(); }

 private:
  int64_t last_eval_step_;  // ahead of lines_: what was there is read before it is appended to
  JsonLines lines_;
};

}  // namespace qstep::trainer
