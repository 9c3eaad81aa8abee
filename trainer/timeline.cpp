#include "trainer/timeline.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace qstep::trainer {

static_assert(format_name(GemmFormat::kFp8E5m2) == "fp8-e5m2" &&
              gemm_format(precision::QuantFormat::kBf16) == GemmFormat::kBf16);
static_assert(category_name(Category::kGemmFp8E5m2) == "gemm_fp8-e5m2" &&
              category_name(Category::kOther) == "other");

void Timeline::start() {
  ms_.fill(0.0);
  spans_.clear();
  phases_.clear();
  open_ = Phase::kOther;
  waited_ns_ = 0;
  label(-1, {});
  running_ = true;
  begin_ns_ = since_ns_ = now_ns();
  note_phase();
}

Phase Timeline::enter(Phase phase) {
  const Phase before = turn_to(phase);
  if (phase != before) note_phase();
  return before;
}

// The open one, from here on.
void Timeline::note_phase() {
  if (!notes_calls()) return;
  if (!phases_.empty()) phases_.back().when.end = since_ns_;
  phases_.push_back({.phase = open_, .when = {since_ns_, since_ns_}});
}

Phase Timeline::turn_to(Phase phase) {
  const Phase before = open_;
  if (phase == before) return before;
  close();
  open_ = phase;
  return before;
}

const PhaseTimes& Timeline::stop() {
  close();
  running_ = false;
  if (!phases_.empty()) phases_.back().when.end = since_ns_;
  // Steps differ by a few waits: the next one finds room.
  if (spans_.capacity() < 2 * spans_.size()) spans_.reserve(2 * spans_.size());
  if (phases_.capacity() < 2 * phases_.size()) phases_.reserve(2 * phases_.size());
  return ms_;
}

void Timeline::close() {
  const int64_t now = now_ns();
  ms_[static_cast<size_t>(open_)] += static_cast<double>(now - since_ns_) * 1e-6;
  since_ns_ = now;
}

void Timeline::note_wait(Category category, int64_t begin_ns, Phase phase) {
  if (!running_ || level_ == TimingLevel::kOff) return;
  const TimeRange when{begin_ns, now_ns()};
  waited_ns_ += when.length();
  spans_.push_back({.when = when,
                    .waited_ns = 0,
                    .category = category,
                    .phase = phase,
                    .call = "wait",
                    .label = label_,
                    .layer = layer_,
                    .gemm = {}});
}

void Timeline::end_call(const Mark& mark, Category category, std::string_view call,
                        const GemmCall& gemm) {
  spans_.push_back({.when = {mark.begin_ns, now_ns()},
                    .waited_ns = waited_ns_ - mark.waited_ns,
                    .category = category,
                    .phase = open_,
                    .call = call,
                    .label = label_,
                    .layer = layer_,
                    .gemm = gemm});
}

double total_ms(const PhaseTimes& times) {
  return std::accumulate(times.begin(), times.end(), 0.0);
}

double measure_note_ns() {
  constexpr int kCalls = 2000, kRounds = 5;  // as many calls as a step of a large model has
  Timeline timeline(TimingLevel::kOps);
  double least = std::numeric_limits<double>::infinity();  // the first rounds find the memory
  for (int round = 0; round < kRounds; ++round) {
    timeline.start();
    for (int i = 0; i < kCalls; ++i) {
      timeline.end_call(timeline.begin_call(), Category::kOther, "call");
    }
    timeline.stop();
    least = std::min(least, static_cast<double>(timeline.step().length()) / kCalls);
  }
  return least;
}

}  // namespace qstep::trainer
