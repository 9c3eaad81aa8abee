#include "trainer/bench/compare_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "trainer/backend/backend.h"
#include "trainer/base/progress_line.h"
#include "trainer/base/signals.h"
#include "trainer/machine/machine.h"
#include "trainer/step/machine_memory.h"
#include "trainer/step/schedule.h"

namespace qstep::trainer {

namespace {

// The first steps of a side that was just built find no memory and no plans yet: never counted.
constexpr int64_t kColdSteps = 3;

// One side of a pair: a model whose steps are timed.
class TimedRecipe {
 public:
  explicit TimedRecipe(const Config& config)
      : ops_(make_backend(config.run.device)),
        trainer_(*ops_, config),
        has_phases_(plan_precision(config).phases.size() > 1) {}

  // Every segment measures what the recipe begins with, whatever it changes to later in a run.
  void begin_segment() {
    if (has_phases_) trainer_.set_steps_done(0);
  }
  // Milliseconds.
  double step(BatchSource& batches) {
    const Config& c = trainer_.config();
    const double lr =
        learning_rate(c.optimizer, std::min(steps_, c.train.steps - 1), c.train.steps);
    return total_ms(trainer_.step(batches, lr, ++steps_).phases_ms);
  }
  // Of the last step.
  const Timeline& timeline() const { return trainer_.timeline(); }

 private:
  std::unique_ptr<ops::Ops> ops_;
  Trainer trainer_;
  bool has_phases_;
  int64_t steps_ = 0;
};

}  // namespace

StepData::StepData(const Config& config) {
  if (config.data.train.empty()) return;
  store_.emplace(data::TokenStore::open(config.data.train));
  loader_ = std::make_unique<data::Loader>(
      *store_, data::LoaderOptions{.seq_len = config.train.seq_len,
                                   .micro_batch = config.train.micro_batch,
                                   .micros_per_step = config.train.micros_per_step(),
                                   .seed = config.train.seed});
}

void StepData::finish(Config& config) const {
  constexpr int64_t kVocabulary = 4096;  // of models that take theirs from a corpus
  finish_model(config, store_ ? static_cast<int64_t>(store_->info().vocab_size) : kVocabulary);
}

std::unique_ptr<BatchSource> StepData::from(const Config& config, int64_t step) const {
  const int64_t micros = config.train.micros_per_step();
  if (!loader_) return std::make_unique<RandomBatches>(config, step * micros);
  return std::make_unique<PrefetchedBatches>(*loader_, step, parallel::Range{0, micros});
}

bool stop_wanted(const CompareSeams& seams) {
  return stop_signal().has_value() || (seams.stop && seams.stop());
}

PairMemory pair_memory(const Config& a, const Config& b, const CompareSeams& seams) {
  // A tenth for what the operations and libraries keep beside the trainers' own.
  constexpr double kShare = 0.9;
  const std::unique_ptr<ops::Ops> ops = make_backend(a.run.device);
  const int64_t there =
      ops->in_host_memory() ? read_machine().available_bytes : ops::current_gpu().free_bytes;
  const int64_t available = seams.available_bytes > 0 ? seams.available_bytes : there;
  PairMemory memory{.a_bytes = total_bytes(backend_memory(a, *ops)),
                    .b_bytes = total_bytes(backend_memory(b, *ops))};
  memory.together = static_cast<double>(memory.a_bytes + memory.b_bytes) <
                    kShare * static_cast<double>(available);
  return memory;
}

void measure_pair(CompareState& state, const PairTask& task, const StepData& data,
                  CompareProgress& progress, const CompareSeams& seams,
                  const std::function<void()>& save) {
  using Clock = std::chrono::steady_clock;
  const CompareSetting& setting = state.setting;
  const bool together = pair_memory(task.a, task.b, seams).together;
  std::array<std::unique_ptr<TimedRecipe>, 2> sides;
  // Each goes on from segment to segment, so that its next batch is there when a segment begins.
  std::array<std::unique_ptr<BatchSource>, 2> sources;
  ComparePair& pair = state.pair(task.recipe, task.observer);
  const std::string names = fmt::format("{} | {}", setting.recipes[0],
                                        task.observer      ? "with timing.level = off and not"
                                        : task.recipe == 0 ? setting.recipes[0] + " again"
                                                           : setting.recipes[task.recipe]);
  const int64_t per_segment = setting.warmup + setting.steps;
  const bool notes_parts = !task.observer && task.a.timing.level == TimingLevel::kOps;
  std::vector<std::pair<Side, StepParts>> block_parts;  // of the block in progress
  for (auto segment = static_cast<int64_t>(pair.segments_ms.size());
       segment < task.blocks * kSegmentsPerBlock; ++segment) {
    const Side side = side_of(segment);
    const size_t recipe = side == Side::kA ? 0 : task.recipe;
    const Config& config = side == Side::kA ? task.a : task.b;
    auto& own = sides[static_cast<size_t>(side)];
    if (!together) sides[1 - static_cast<size_t>(side)].reset();
    if (!own) {
      own = std::make_unique<TimedRecipe>(config);
      const auto batches = data.from(config, 0);
      for (int64_t i = setting.warmup; i < kColdSteps; ++i) own->step(*batches);
    }
    // Both sides see the same batches in the same turn, also behind an interruption.
    auto& source = sources[static_cast<size_t>(side)];
    if (!source) source = data.from(config, turn_of(segment) * per_segment);
    own->begin_segment();
    progress.enter(fmt::format("{}, block {} of {}, segment {} of {}", names,
                               segment / kSegmentsPerBlock + 1, task.blocks,
                               segment % kSegmentsPerBlock + 1, kSegmentsPerBlock));
    std::vector<double> times;
    SegmentParts parts;
    for (int64_t i = 0; i < per_segment; ++i) {
      const auto start = Clock::now();
      const double ms = own->step(*source);
      if (i >= setting.warmup) {
        times.push_back(seams.step_ms ? seams.step_ms(ms, pair, segment) : ms);
        if (notes_parts) parts.add(own->timeline());
      }
      progress.advance(recipe, 1, std::chrono::duration<double>(Clock::now() - start).count());
      if (stop_wanted(seams)) throw Interrupted{};
    }
    pair.segments_ms.push_back(quantile(times, 0.5));
    if (notes_parts) block_parts.emplace_back(side, parts.medians());
    // A block counts as a whole or not at all, as its times do.
    if ((segment + 1) % kSegmentsPerBlock == 0) {
      for (const auto& [of, medians] : block_parts) pair.parts_of(of).add(medians);
      block_parts.clear();
      save();
    }
  }
}

}  // namespace qstep::trainer
