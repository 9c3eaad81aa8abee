// A training run on one of its ranks: data, resume, the loop over steps, evaluation, checkpoints,
// signals, the time limit.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "data/loader.h"
#include "parallel/comm.h"
#include "trainer/backend/rank_backend.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/config/config.h"
#include "trainer/plan/utilisation.h"
#include "trainer/run/ledger.h"
#include "trainer/run/run_output.h"
#include "trainer/run/run_trace.h"
#include "trainer/run/run_watch.h"
#include "trainer/run/time_limit.h"
#include "trainer/run/timing_rows.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {

class TrainRun {
 public:
  // All ranks together make one and call run(). dir: null on every rank but the first; outlives
  // this, as do comm and watch. Errors of one rank alone: nothing here waits for another one.
  TrainRun(const Config& config, parallel::Comm& comm, RunWatch& watch, const RunDir* dir);
  TrainRun(const TrainRun&) = delete;
  TrainRun& operator=(const TrainRun&) = delete;
  ~TrainRun();

  // Until the last step (kOk), a stop signal or the time limit, behind a checkpoint.
  ops::ExitCode run();

  int64_t step() const { return state_.step; }
  const std::string& last_checkpoint() const { return last_checkpoint_; }
  const std::string& hash() const { return state_.config_hash; }

 private:
  std::unique_ptr<CheckpointReader> open_checkpoint();
  void resume(const CheckpointReader& checkpoint);
  std::vector<MemoryRow> memory(int rank) const;
  void listen();
  void open_timing();
  void loop();
  void one_step(BatchSource& batches);
  void evaluate_now();
  void save();
  void update_stop();
  bool eval_due() const;

  Config config_;
  parallel::Comm& comm_;
  RunWatch& watch_;
  const RunDir* dir_;
  data::TokenStore store_;
  std::unique_ptr<data::Loader> loader_;
  std::optional<RankBackend> backend_;
  ops::Ops* ops_ = nullptr;  // the backend's
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<RunOutput> output_;
  std::unique_ptr<CollectiveTimes> collectives_;  // null where there is one rank, or no timing_
  std::unique_ptr<TimingRows> timing_;            // null: timing.level = off
  std::unique_ptr<RunTrace> trace_;               // null: timing.trace_first = 0
  std::unique_ptr<NumericLedger> ledger_;  // null: nothing is quantized, or nobody wants to know
  MachineModel machine_;                   // without rates: MFU and SOL are not known
  std::unique_ptr<RunLeastTimes> least_;   // what steps need at its peaks
  CheckpointState state_;
  std::string last_checkpoint_;
  int64_t saved_step_ = -1;      // the step of last_checkpoint_
  int64_t evaluated_step_ = -1;  // of the last evaluation, this process's or an earlier one's
  TimeLimit limit_{config_.run.max_minutes, std::getenv("SLURM_JOB_END_TIME")};
  std::optional<ops::ExitCode> stop_;  // why the loop is to end before the last step
};

}  // namespace qstep::trainer
