// The step time of two recipes in turn: segments of A B B A, B A A B in one process, on the same
// batches.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "data/loader.h"
#include "trainer/bench/compare_progress.h"
#include "trainer/bench/compare_state.h"
#include "trainer/config/config.h"
#include "trainer/step/batch_sources.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {

// What steps are made of: the configuration's token store, or synthetic tokens where it names none.
class StepData {
 public:
  explicit StepData(const Config& config);

  // Gives a configuration its vocabulary, and checks it.
  void finish(Config& config) const;
  // All micro-batches from this step (counted from 0) on.
  std::unique_ptr<BatchSource> from(const Config& config, int64_t step) const;
  // Micro-batches of the store's validation part; 0 without one.
  int64_t validation_batches() const { return loader_ ? loader_->validation_batches() : 0; }

 private:
  std::optional<data::TokenStore> store_;
  std::unique_ptr<data::Loader> loader_;
};

// What a test puts in the place of the clock and of the user; a command has none of it.
struct CompareSeams {
  // The time that counts, of a step of this segment of this pair that took `ms`.
  std::function<double(double ms, const ComparePair& pair, int64_t segment)> step_ms;
  // Whether to stop as after a signal; asked behind every step.
  std::function<bool()> stop;
  // Bytes that a pair may take; 0: what the machine has.
  int64_t available_bytes = 0;
};

// Behind the first stop signal.
bool stop_wanted(const CompareSeams& seams);

// Bytes of both sides of a pair, and whether they fit in memory together. Where they do not, one is
// built anew for every segment.
struct PairMemory {
  int64_t a_bytes = 0, b_bytes = 0;
  bool together = true;
};
PairMemory pair_memory(const Config& a, const Config& b, const CompareSeams& seams);

struct PairTask {
  const Config& a;
  const Config& b;
  size_t recipe = 0;  // number of b
  bool observer = false;
  int64_t blocks = 8;
};

// Measures what state's pair lacks of so many blocks; `save` hears of every block that was added.
// Throws Interrupted (progress_line.h) when asked to stop.
void measure_pair(CompareState& state, const PairTask& task, const StepData& data,
                  CompareProgress& progress, const CompareSeams& seams,
                  const std::function<void()>& save);

}  // namespace qstep::trainer
