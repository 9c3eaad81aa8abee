#include "trainer/run/run_output.h"

namespace qstep::trainer {

RunOutput::RunOutput(const RunDir* dir, const Config& config, const data::StoreInfo& data,
                     int n_ranks, bool emulated)
    : dir_(dir), config_(config), n_ranks_(n_ranks), emulated_(emulated) {
  if (dir_ != nullptr) report_ = std::make_unique<RunReport>(config, data, n_ranks, emulated);
}

void RunOutput::header(const std::vector<MemoryRow>& memory, int64_t windows_per_epoch,
                       std::string_view backend) {
  if (report_) report_->header(memory, windows_per_epoch, backend);
}

void RunOutput::resumed(const std::string& path, int64_t step, const std::string& note) {
  if (report_) report_->resumed(path, step, note);
}

void RunOutput::open(const CheckpointState& state, const MachineModel& machine,
                     std::string_view backend) {
  if (dir_ == nullptr) return;
  report_->peaks(machine);
  dir_->write_config(state.config_toml);
  dir_->write_recipe(state.recipe_toml);
  metrics_ = std::make_unique<MetricsFile>(dir_->metrics_jsonl(), state.step);
  metrics_->run({.first_step = state.step + 1,
                 .config_hash = state.config_hash,
                 .recipe = config_.precision.recipe,
                 .emulated = emulated_,
                 .ranks = n_ranks_,
                 .tensor = config_.parallel.tensor,
                 .n_parameters = n_parameters(config_.model),
                 .flops_per_token =
                     flops_per_token(config_.model, config_.train.seq_len, AttentionCount::kCausal),
                 .machine = machine});
  metrics_->facts(state.step + 1, run_facts(n_ranks_, backend));
  const std::string path = dir_->ledger_jsonl();
  if (config_.precision.ledger_every == 0 || plan_precision(config_).plain()) {
    keep_rows(path, state.step, [](const auto&, int64_t) {});
  } else {
    ledger_ = std::make_unique<LedgerFile>(path, state.step);
  }
}

void RunOutput::begin(int64_t step) {
  if (report_) report_->begin(step);
}

void RunOutput::step(const StepRow& row, int64_t skipped_steps) {
  if (!report_) return;
  metrics_->step(row);
  report_->step(row, skipped_steps);
  if (!row.non_finite_input.empty()) report_->non_finite(row.step, row.non_finite_input);
}

void RunOutput::ledger(int64_t step, const NumericLedger& ledger) {
  if (ledger_) ledger_->step(step, ledger);
}

void RunOutput::eval(const EvalRow& row) {
  if (!report_) return;
  metrics_->eval(row);
  report_->eval(row);
}

void RunOutput::saved(const CheckpointRow& row) {
  if (!report_) return;
  metrics_->checkpoint(row);
  report_->saved(row);
}

void RunOutput::summary(const CheckpointState& state, const std::string& checkpoint,
                        bool finished) {
  if (report_) report_->summary(state, checkpoint, finished);
}

void RunOutput::sync() const {
  if (metrics_) metrics_->sync();
  if (ledger_) ledger_->sync();
}

}  // namespace qstep::trainer
