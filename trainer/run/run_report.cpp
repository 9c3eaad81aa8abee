#include "trainer/run/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "ops/parallel_for.h"
#include "trainer/backend/emulation.h"
#include "trainer/base/format.h"
#include "trainer/config/config_options.h"
#include "trainer/machine/machine.h"
#include "trainer/machine/rank_peaks.h"

namespace qstep::trainer {

namespace {

constexpr size_t kRecentSteps = 1024;  // over which the summary's median runs

template <class... Args>
void line(fmt::format_string<Args...> format, Args&&... args) {
  fmt::print(format, std::forward<Args>(args)...);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

}  // namespace

RunReport::RunReport(const Config& config, const data::StoreInfo& data, int n_ranks, bool emulated)
    : config_(config),
      data_(data),
      n_ranks_(n_ranks),
      runs_(emulation_text(emulated)),
      last_eval_(std::numeric_limits<double>::quiet_NaN()),
      memory_total_bytes_(read_machine().memory_bytes) {
  step_ms_.reserve(kRecentSteps);
}

void RunReport::header(const std::vector<MemoryRow>& memory, int64_t windows_per_epoch,
                       std::string_view backend) {
  const ModelConfig& m = config_.model;
  const TrainConfig& t = config_.train;
  const data::PartInfo& train = data_.part(data::Part::kTrain);
  line("model      {} | {} parameters | {} layers, width {}, {} heads ({} kv), vocabulary {}",
       m.preset.empty() ? "custom" : m.preset, count_text(n_parameters(m)), m.n_layers, m.width,
       m.n_heads, m.n_kv_heads, m.vocab_size);
  line("data       {} | {} tokens, {} tokenizer | {} samples of {} tokens per epoch",
       config_.data.train, count_text(static_cast<int64_t>(train.num_tokens)), data_.tokenizer,
       windows_per_epoch, t.seq_len);
  line("step       {} sequences = {} micro-batches of {} | {} tokens | {:.3g} model flops",
       t.global_batch, t.micros_per_step(), t.micro_batch, t.global_batch * t.seq_len,
       flops_per_token(m, t.seq_len, AttentionCount::kCausal) *
           static_cast<double>(t.global_batch * t.seq_len));
  line("recipe     {} {} | {}, {} threads{}", config_.precision.recipe, runs_, backend,
       ops::max_threads(), n_ranks_ > 1 ? " per rank" : "");
  if (n_ranks_ > 1) {
    const int64_t tensor = config_.parallel.tensor;
    const std::string mesh =
        tensor == 1 ? fmt::format("{} data-parallel", n_ranks_)
                    : fmt::format("{}: tensor {} x data {}", n_ranks_, tensor, n_ranks_ / tensor);
    line("ranks      {} | gradients added in {} order | optimizer state {}", mesh,
         choice_name(config_.parallel.reduction), choice_name(config_.parallel.optimizer));
  }
  int64_t total = 0;
  std::string rows;
  for (const MemoryRow& row : memory) {
    total += row.bytes;
    rows += fmt::format(" | {} {}", row.owner, bytes_text(row.bytes));
  }
  line("memory     {}{}{}", bytes_text(total), n_ranks_ > 1 ? " on rank 0" : "", rows);
}

void RunReport::peaks(const MachineModel& machine) {
  line("peak       {}{}", n_ranks_ > 1 ? "of a rank: " : "", peaks_text(machine));
}

void RunReport::resumed(const std::string& path, int64_t step, const std::string& note) {
  line("resumed    {} (step {})", path, step);
  if (!note.empty()) line("{}", note);
}

void RunReport::begin(int64_t step) {
  first_step_ = step;
  start_ = Clock::now();
}

void RunReport::step(const StepRow& row, int64_t skipped_steps) {
  if (n_steps_ == 0) first_loss_ = row.loss;
  last_loss_ = row.loss;
  if (step_ms_.size() < kRecentSteps) {
    step_ms_.push_back(row.step_ms);
  } else {
    step_ms_[static_cast<size_t>(n_steps_) % kRecentSteps] = row.step_ms;
  }
  ++n_steps_;
  for (size_t i = 0; i < phases_ms_.size(); ++i) phases_ms_[i] += row.phases_ms[i];
  last_ = row;
  interval_.add(row);

  const int64_t done = row.step - first_step_;
  const bool due = row.step % config_.run.log_every == 0 || done <= 3 ||
                   row.step == config_.train.steps || row.skipped;
  if (!due) return;
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  LogLine said = interval_.take(n_ranks_);
  said.steps = config_.train.steps;
  said.memory_total_bytes = memory_total_bytes_;
  said.recipe = config_.precision.recipe;
  said.runs = runs_;
  said.skipped = skipped_steps;
  said.left_s =
      elapsed / static_cast<double>(done) * static_cast<double>(config_.train.steps - row.step);
  line("{}", log_line(said));
}

void RunReport::non_finite(int64_t step, const std::string& input) {
  line("warning: step {}: non-finite input to {}", step, input);
}

void RunReport::eval(const EvalRow& row) {
  last_eval_ = row.loss;
  line("eval {:>{}} | loss {:.4f} nats | {:.4f} bits/byte | {} tokens | {:.0f} ms", row.step,
       std::to_string(config_.train.steps).size(), row.loss, row.bits_per_byte, row.tokens,
       row.eval_ms);
}

void RunReport::saved(const CheckpointRow& row) {
  line("save {:>{}} | {} | {:.0f} ms", row.step, std::to_string(config_.train.steps).size(),
       row.path, row.save_ms);
}

void RunReport::summary(const CheckpointState& state, const std::string& checkpoint,
                        bool finished) {
  if (n_steps_ == 0 && !finished) {
    line("stopped before the first step");
    return;
  }
  if (n_steps_ == 0) {
    line("nothing left to do: step {} of {} is already done; raise train.steps to go on",
         state.step, config_.train.steps);
    return;
  }
  const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  std::nth_element(step_ms_.begin(), step_ms_.begin() + static_cast<ptrdiff_t>(step_ms_.size() / 2),
                   step_ms_.end());
  const double median = step_ms_[step_ms_.size() / 2];
  const int64_t tokens = config_.train.global_batch * config_.train.seq_len;
  line("");
  line("{} at step {} of {} after {}: loss {:.4f} -> {:.4f}{}", finished ? "finished" : "stopped",
       state.step, config_.train.steps, duration_text(elapsed), first_loss_, last_loss_,
       std::isfinite(last_eval_) ? fmt::format(", validation {:.4f}", last_eval_) : "");
  std::string phases;
  for (size_t i = 0; i < phases_ms_.size(); ++i) {
    phases += fmt::format("{}{} {:.1f} %", i == 0 ? "" : ", ", kPhaseNames[i],
                          100.0 * phases_ms_[i] / total_ms(phases_ms_));
  }
  line("  step {:.1f} ms median, {:.0f} tokens/s | {}", median,
       static_cast<double>(tokens) / (median * 1e-3), phases);
  const double faster = last_.step_ms / median;
  line("  {:.4g} TFLOP/s causal{} at the median | mfu {} of the bf16 peak | sol {}",
       last_.tflops_causal * faster, n_ranks_ > 1 ? " a rank" : "",
       share_text(last_.mfu_bf16 * faster), share_text(last_.sol * faster));
  if (state.skipped_steps > 0) {
    line("  {} updates skipped because loss or gradient was not finite", state.skipped_steps);
  }
  line("  metrics {}/metrics.jsonl", config_.run.dir);
  if (config_.precision.ledger_every > 0 && !plan_precision(config_).plain()) {
    line("  ledger {0}/ledger.jsonl, shown by qstep recipe ledger {0}", config_.run.dir);
  }
  line("  checkpoint {}", checkpoint);
}

}  // namespace qstep::trainer
