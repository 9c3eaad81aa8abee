#include "trainer/run/train_run.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>

#include "ops/parallel_for.h"
#include "parallel/shards.h"
#include "trainer/backend/emulation.h"
#include "trainer/backend/rank_device.h"
#include "trainer/base/agreement.h"
#include "trainer/base/exit_reason.h"
#include "trainer/base/signals.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/config/rank_check.h"
#include "trainer/config/recipe_file.h"
#include "trainer/machine/rank_peaks.h"
#include "trainer/quantizers/host_tensors.h"
#include "trainer/quantizers/self_test.h"
#include "trainer/run/resume.h"
#include "trainer/step/batch_sources.h"
#include "trainer/step/evaluation.h"
#include "trainer/step/machine_memory.h"
#include "trainer/step/schedule.h"

namespace qstep::trainer {

namespace {

using Clock = std::chrono::steady_clock;
using ops::Error;
using ops::ExitCode;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

// The serialized tokenizer of a store; empty where the name says it all, or where there is none.
std::string tokenizer_model(const data::TokenStore& store) {
  return store.info().tokenizer == "sentencepiece" ? store.tokenizer()->model() : std::string();
}

}  // namespace

TrainRun::TrainRun(const Config& config, parallel::Comm& comm, RunWatch& watch, const RunDir* dir)
    : config_(config),
      comm_(comm),
      watch_(watch),
      dir_(dir),
      store_(data::TokenStore::open(config.data.train)) {
  finish_model(config_, static_cast<int64_t>(store_.info().vocab_size));
  require_ranks(config_, comm_.size());
  loader_ = std::make_unique<data::Loader>(
      store_, data::LoaderOptions{.seq_len = config_.train.seq_len,
                                  .micro_batch = config_.train.micro_batch,
                                  .micros_per_step = config_.train.micros_per_step(),
                                  .seed = config_.train.seed});
  state_.seed = config_.train.seed;
  state_.vocab_size = config_.model.vocab_size;
  state_.config_toml = to_toml(config_);
  state_.recipe_toml = to_toml(config_.precision.loaded);
  state_.config_hash = config_hash(config_);
  state_.data_content_hash = store_.info().part(data::Part::kTrain).content_hash;
  state_.tokenizer = store_.info().tokenizer;
  state_.tokenizer_sha256 = store_.info().tokenizer_sha256;
  state_.tokenizer_model = tokenizer_model(store_);
}

// Null for a new run.
std::unique_ptr<CheckpointReader> TrainRun::open_checkpoint() {
  auto checkpoint = checkpoint_to_resume(comm_, config_, dir_);
  if (checkpoint) agree(comm_, [&] { check_continues(config_, store_, *checkpoint); });
  return checkpoint;
}

void TrainRun::resume(const CheckpointReader& checkpoint) {
  std::string recipe_note;
  agree(comm_, [&] {
    HostTensors parameters(*ops_, named_tensors(trainer_->shards(), trainer_->parameters()));
    for (const NamedTensor& tensor : parameters.tensors()) checkpoint.read(tensor);
    parameters.upload();
    HostTensors precision(*ops_, trainer_->precision_state());
    recipe_note = read_precision_state(checkpoint, precision.tensors());
    precision.upload();
  });
  trainer_->refresh_weights();
  trainer_->set_steps_done(checkpoint.state().step);
  const CheckpointState& saved = checkpoint.state();
  state_.step = saved.step;
  state_.tokens = saved.tokens;
  state_.updates = saved.updates;
  state_.skipped_steps = saved.skipped_steps;
  state_.bad_steps_in_a_row = saved.bad_steps_in_a_row;
  last_checkpoint_ = checkpoint.path();
  output_->resumed(checkpoint.path(), saved.step, resume_note(config_, checkpoint) + recipe_note);
}

TrainRun::~TrainRun() {
  if (collectives_) trainer_->groups().observe(watch_.observer());
}

std::vector<MemoryRow> TrainRun::memory(int rank) const {
  return backend_memory(config_, *ops_, comm_.size(), rank);
}

// Hears of this rank's collectives from here on.
void TrainRun::listen() {
  if (comm_.size() == 1) return;
  collectives_ = std::make_unique<CollectiveTimes>(watch_.observer());
  trainer_->groups().observe(collectives_.get());
}

// Files of ranks that are no more, or of all where nothing is noted, lose what is done again.
void TrainRun::open_timing() {
  const bool off = config_.timing.level == TimingLevel::kOff;
  if (!off) listen();
  agree(comm_, [&] {
    const std::string& folder = config_.run.dir;
    const int rank = comm_.rank();
    if (rank == 0) {
      const bool traced = config_.timing.trace_first > 0;
      drop_timing_rows(folder, off ? 0 : comm_.size(), state_.step);
      drop_traces(folder, traced ? comm_.size() : 0, state_.step);
    }
    if (off) return;
    const parallel::Mesh& mesh = trainer_->groups().mesh();
    timing_ = std::make_unique<TimingRows>(timing_rows_path(folder, rank), state_.step, rank,
                                           trainer_->groups().by_name(),
                                           emulated(config_.precision.loaded.compute, *ops_));
    if (config_.timing.trace_first > 0) {
      trace_ = std::make_unique<RunTrace>(config_, *trainer_, memory(rank), collectives_.get(),
                                          state_.step);
    }
    timing_->run({.first_step = state_.step + 1,
                  .rank = rank,
                  .host = host_name(),
                  .pid = ::getpid(),
                  .tensor_rank = mesh.tensor_rank(rank),
                  .data_rank = mesh.data_rank(rank),
                  .threads = ops::max_threads(),
                  .note_ns = measure_note_ns(ops_->clock())},
                 memory(rank));
  });
}

void TrainRun::one_step(BatchSource& batches) {
  const double lr = learning_rate(config_.optimizer, state_.step, config_.train.steps);
  const bool counted = ledger_ && ledger_due(state_.step + 1, config_.precision.ledger_every);
  if (counted) ledger_->begin_step(state_.step + 1);
  trainer_->set_ledger(counted ? ledger_.get() : nullptr);
  watch_.enter(parallel::Phase::kStep, state_.step + 1);
  const StepResult result = trainer_->step(batches, lr, state_.updates + 1);

  ++state_.step;
  if (timing_) {
    const Timeline& timeline = trainer_->timeline();
    timing_->add(
        state_.step, timeline,
        collectives_ ? collectives_->take(timeline.step()) : std::vector<CollectiveTime>());
    if (state_.step % config_.timing.every == 0) timing_->write();
  }
  const bool traced = trace_ && trace_->traces(state_.step);
  if (traced) trace_->step(state_.step, trainer_->timeline());
  if (counted) {
    ledger_->join(trainer_->groups());
    output_->ledger(state_.step, *ledger_);
  }
  const int64_t tokens = config_.train.global_batch * config_.train.seq_len;
  state_.tokens += tokens;
  state_.updates += result.skipped ? 0 : 1;
  state_.skipped_steps += result.skipped ? 1 : 0;
  state_.bad_steps_in_a_row = result.skipped ? state_.bad_steps_in_a_row + 1 : 0;

  const double step_ms = total_ms(result.phases_ms);
  const double tokens_per_s = static_cast<double>(tokens) / (step_ms * 1e-3);
  const Utilisation used = utilisation(least_->at(state_.step), step_ms * 1e-3);
  const StepRow row{
      .step = state_.step,
      .loss = result.loss,
      .lr = lr,
      .grad_norm = result.grad_norm,
      .step_ms = step_ms,
      .tokens = tokens,
      .tokens_total = state_.tokens,
      .tokens_per_s = tokens_per_s,
      .model_flops_per_s = used.causal_flops_per_s * comm_.size(),
      .tflops_causal = used.causal_flops_per_s * 1e-12,
      .mfu_bf16 = used.mfu_bf16,
      .sol = used.sol,
      .peak_rss_bytes = peak_rss_bytes(),
      .skipped = result.skipped,
      .non_finite_input = result.non_finite_input,
      .phases_ms = result.phases_ms,
      .breakdown_ms = result.breakdown_ms,
      .host_ms = result.host_ms,
      .comm_exposed_ms = config_.timing.level == TimingLevel::kOff
                             ? std::nullopt
                             : std::optional(result.phases_ms[static_cast<size_t>(Phase::kComm)]),
      .comm_busy_ms = result.comm_busy_ms,
      .comm_bytes = result.comm_bytes,
      .tags = traced ? std::vector<std::string_view>{"profiler"} : std::vector<std::string_view>{}};
  output_->step(row, state_.skipped_steps);

  if (state_.bad_steps_in_a_row >= config_.train.max_bad_steps) {
    save();  // the skipped updates left the weights as they were
    throw Error(
        ExitCode::kNonFinite,
        fmt::format("step {}: loss {} and gradient norm {}{}: {} steps in a row were not finite "
                    "and their updates skipped; lower optimizer.lr, raise "
                    "optimizer.warmup_steps, or look at the data",
                    state_.step, result.loss, result.grad_norm,
                    result.non_finite_input.empty()
                        ? ""
                        : ", first non-finite input to " + result.non_finite_input,
                    state_.bad_steps_in_a_row));
  }
}

// Whether this step is to be evaluated and has not been: a stop signal leaves that to the next
// process.
bool TrainRun::eval_due() const {
  const int64_t every = config_.train.eval_every;
  const bool scheduled = every > 0 && state_.step > 0 &&
                         (state_.step % every == 0 || state_.step == config_.train.steps);
  return scheduled && loader_->validation_batches() > 0 && evaluated_step_ < state_.step;
}

void TrainRun::evaluate_now() {
  const int64_t begin = Timeline::now_ns();
  watch_.enter(parallel::Phase::kEvaluation, state_.step);
  const EvalResult result =
      evaluate(store_, *loader_, trainer_->groups().hosts().data(), config_.train.eval_batches,
               [&](const MicroBatch& b) { return trainer_->evaluate(b); });
  evaluated_step_ = state_.step;
  const TimeRange when{begin, Timeline::now_ns()};
  if (trace_) trace_->note(Lane::kMain, "evaluation", when);
  const EvalRow row{.step = state_.step,
                    .loss = result.loss,
                    .bits_per_byte = result.bits_per_byte,
                    .tokens = result.tokens,
                    .eval_ms = static_cast<double>(when.length()) * 1e-6,
                    .precision = evaluation_text(config_, *ops_)};
  output_->eval(row);
}

void TrainRun::save() {
  const Clock::time_point start = Clock::now();
  watch_.enter(parallel::Phase::kSave, state_.step);
  trainer_->check_replicas();  // a checkpoint is of weights that are alike
  output_->sync();             // no checkpoint is durable whose rows are not
  if (timing_) {
    timing_->write();
    timing_->sync();
  }
  std::vector<NamedTensor> tensors = saved_tensors(trainer_->shards(), trainer_->parameters());
  for (NamedTensor& tensor : trainer_->precision_state()) tensors.push_back(std::move(tensor));
  const std::string root = checkpoints_of(config_.run.dir);
  const HostTensors saved(*ops_, std::move(tensors));
  const auto write = [&](const StepHook& hook) {
    save_checkpoint(comm_, root, state_, saved.tensors(), config_.run.keep_last, hook);
  };
  trace_ ? trace_->save(state_.step, write) : write({});
  saved_step_ = state_.step;
  last_checkpoint_ = root + "/" + step_folder(state_.step);
  const CheckpointRow row{
      .step = state_.step, .save_ms = ms_since(start), .path = last_checkpoint_};
  limit_.save_took(row.save_ms * 1e-3);
  output_->saved(row);
}

// Every rank must see the same answer, or one would leave the others waiting.
void TrainRun::update_stop() {
  int32_t code = 0;
  if (limit_.reached()) code = static_cast<int32_t>(ExitCode::kTimeLimit);
  if (stop_signal()) code = static_cast<int32_t>(ExitCode::kPreempted);
  const ops::Tensor flag = ops::matrix(&code, ops::Dtype::kI32, 1, 1);
  comm_.wait(comm_.all_reduce(flag, parallel::Reduce::kMax));
  if (code != 0) stop_ = static_cast<ExitCode>(code);
}

void TrainRun::loop() {
  const parallel::Comm& data = trainer_->groups().hosts().data();
  PrefetchedBatches batches(
      *loader_, state_.step,
      parallel::even_part(config_.train.micros_per_step(), data.size(), data.rank()),
      trace_ ? [this](const data::BatchRead& read) { trace_->batch_read(read); }
             : std::function<void(const data::BatchRead&)>());
  output_->begin(state_.step);
  if (collectives_) collectives_->take({0, Timeline::now_ns()});  // those of the start
  if (eval_due()) evaluate_now();
  const int64_t steps = config_.train.steps, save_every = config_.run.save_every;
  for (update_stop(); state_.step < steps && !stop_; update_stop()) {
    const Clock::time_point start = Clock::now();
    if (trace_) trace_->ahead_of(state_.step + 1);
    one_step(batches);
    if (eval_due()) {
      update_stop();
      if (!stop_) evaluate_now();
    }
    const int64_t check_every = config_.parallel.check_every;
    if (check_every > 0 && state_.step % check_every == 0) trainer_->check_replicas();
    limit_.step_took(ms_since(start) * 1e-3);
    if (save_every > 0 && state_.step % save_every == 0) save();
  }
}

ExitCode TrainRun::run() {
  const RankDevice chosen = choose_device(config_.run.device, comm_);
  if (dir_ != nullptr && !chosen.note.empty()) fmt::print(stderr, "warning: {}\n", chosen.note);
  backend_.emplace(chosen.device, comm_, watch_.observer());
  ops_ = &backend_->ops();
  std::unique_ptr<CheckpointReader> checkpoint = open_checkpoint();
  output_ = std::make_unique<RunOutput>(dir_, config_, store_.info(), comm_.size(),
                                        emulated(config_, *ops_));
  output_->header(memory(comm_.rank()), loader_->windows(), backend_->text(config_));
  agree(comm_, [&] { require_self_test(config_.precision.loaded, quantize_on_host(*ops_)); });
  trainer_ = std::make_unique<Trainer>(*ops_, config_, backend_->worlds());
  limit_.expect_save_of(12.0 * static_cast<double>(trainer_->shards().owned_total));
  if (checkpoint) {
    resume(*checkpoint);
    checkpoint.reset();
  }
  machine_ = rank_machine(comm_, config_, ops_->name());
  least_ = std::make_unique<RunLeastTimes>(config_, comm_.size(), machine_);
  evaluated_step_ = std::stoll(text_of_first_rank(comm_, [&] {
    output_->open(state_, machine_, ops_->name());
    return fmt::format("{}", output_->last_eval_step());
  }));
  open_timing();
  const PrecisionPlan plan = plan_precision(config_);
  if (config_.precision.ledger_every > 0 && !plan.plain()) {
    ledger_ = std::make_unique<NumericLedger>(plan);
  }

  const int64_t first_step = state_.step;
  try {
    loop();
  } catch (const data::Error&) {
    // What was learned up to the damaged batch is sound: the update has not begun. Of several ranks
    // the others are in the middle of the step and could not save with this one.
    if (comm_.size() > 1) throw;
    if (state_.step > first_step && saved_step_ != state_.step) save();
    throw;
  }
  if (state_.step > first_step && saved_step_ != state_.step) save();
  if (trace_) trace_->finish();
  const bool finished = state_.step == config_.train.steps && !eval_due();
  output_->summary(state_, last_checkpoint_, finished);
  return finished ? ExitCode::kOk : stop_.value_or(ExitCode::kPreempted);
}

}  // namespace qstep::trainer
