// What a run says and leaves behind: the printed lines, metrics.jsonl, ledger.jsonl and the
// configuration in the run folder. Of several ranks the first one has it; on the others every call
// does nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/run/ledger.h"
#include "trainer/run/ledger_file.h"
#include "trainer/run/metrics.h"
#include "trainer/run/run_dir.h"
#include "trainer/run/run_report.h"

namespace qstep::trainer {

class RunOutput {
 public:
  // dir: null on ranks that say nothing; outlives this. emulated: the run is (emulation.h).
  RunOutput(const RunDir* dir, const Config& config, const data::StoreInfo& data, int n_ranks,
            bool emulated);

  void header(const std::vector<MemoryRow>& memory, int64_t windows_per_epoch,
              std::string_view backend);
  void resumed(const std::string& path, int64_t step, const std::string& note);
  // Opens the files: rows behind state.step are dropped.
  // machine: what the steps will be held against. backend: as Ops::name has it.
  void open(const CheckpointState& state, const MachineModel& machine, std::string_view backend);
  void begin(int64_t step);  // the loop starts behind this step

  void step(const StepRow& row, int64_t skipped_steps);
  void ledger(int64_t step, const NumericLedger& ledger);
  void eval(const EvalRow& row);
  void saved(const CheckpointRow& row);
  void summary(const CheckpointState& state, const std::string& checkpoint, bool finished);

  // The step of the last evaluation in the file; 0 when there is none.
  int64_t last_eval_step() const { return metrics_ ? metrics_->last_eval_step() : 0; }
  // Every row so far is durable when this returns.
  void sync() const;

 private:
  const RunDir* dir_;
  Config config_;
  int n_ranks_;
  bool emulated_;
  std::unique_ptr<RunReport> report_;
  std::unique_ptr<MetricsFile> metrics_;
  std::unique_ptr<LedgerFile> ledger_;
};

}  // namespace qstep::trainer
