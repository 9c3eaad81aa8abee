#include "trainer/timing/timeline.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "trainer/timing/timeline_tape.h"

namespace qstep::trainer {

static_assert(format_name(GemmFormat::kFp8E5m2) == "fp8-e5m2" &&
              gemm_format(precision::QuantFormat::kBf16) == GemmFormat::kBf16);
static_assert(category_name(Category::kGemmFp8E5m2) == "gemm_fp8-e5m2" &&
              category_name(Category::kOther) == "other");

void Timeline::start(int64_t step) {
  ms_.fill(0.0);
  spans_.clear();
  phases_.clear();
  turns_.clear();
  open_ = Phase::kOther;
  stood_still_ns_ = 0;
  label(-1, {});
  running_ = true;
  step_range_.begin("step", step);
  phase_range_.begin(kPhaseNames[static_cast<size_t>(open_)], -1);
  if (device_) device_->start();
  since_ = begin_stamp();
  step_.begin = since_;
  note_phase();
}

Phase Timeline::enter(Phase phase) {
  if (tape_ != nullptr) tape_->enter(phase);
  const Phase before = turn_to(phase);
  if (phase != before) {
    note_phase();
    phase_range_.begin(kPhaseNames[static_cast<size_t>(phase)], -1);
  }
  return before;
}

void Timeline::record(TimelineTape* tape) {
  if (tape_ != nullptr) tape_->end(layer_, label_);
  tape_ = tape;
}

// The open one, from here on.
void Timeline::note_phase() {
  if (!notes_calls()) return;
  if (!phases_.empty()) phases_.back().when.end = since_;
  phases_.push_back({.phase = open_, .when = {since_, since_}});
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
  phase_range_.end();
  step_range_.end();
  step_.end = since_;
  if (!phases_.empty()) phases_.back().when.end = since_;
  if (device_) resolve();
  for (const PhaseSpan& turn : turns_) {
    ms_[static_cast<size_t>(turn.phase)] += static_cast<double>(turn.when.length()) * 1e-6;
  }
  for (size_t i = 0; i < spans_.size(); ++i) {
    if (is_wait(spans_[i].category)) continue;
    // Waits of a call end ahead of it.
    for (size_t j = i; j-- > 0 && spans_[j].when.begin >= spans_[i].when.begin;) {
      spans_[i].waited_ns += spans_[j].when.length();
    }
  }
  // Steps differ by a few waits: the next one finds room.
  const auto keep_room = [](auto& list) {
    if (list.capacity() < 2 * list.size()) list.reserve(2 * list.size());
  };
  keep_room(spans_);
  keep_room(phases_);
  keep_room(turns_);
  return ms_;
}

// Where every call ends with a mark, a turn needs none of its own.
void Timeline::close() {
  const Stamp now = notes_calls() ? begin_stamp() : end_stamp();
  turns_.push_back({.phase = open_, .when = {since_, now}});
  since_ = now;
}

// From notes to times.
void Timeline::resolve() {
  device_->read();
  const std::span<const int64_t> times = device_->times(now_ns());
  const auto set = [&](TimeRange& when) {
    when = {times[static_cast<size_t>(when.begin)], times[static_cast<size_t>(when.end)]};
  };
  set(step_);
  for (TimeSpan& span : spans_) set(span.when);
  for (PhaseSpan& phase : phases_) set(phase.when);
  for (PhaseSpan& turn : turns_) set(turn.when);
}

void Timeline::note_wait(Category category, Stamp begin, Phase phase) {
  if (level_ == TimingLevel::kOff) return;
  spans_.push_back({.when = {begin, end_stamp()},
                    .waited_ns = 0,
                    .category = category,
                    .phase = phase,
                    .call = "wait",
                    .label = label_,
                    .layer = layer_,
                    .gemm = {}});
}

Timeline::Stamp Timeline::begin_call() {
  if (tape_ != nullptr) tape_->begin_call(layer_, label_);
  return begin_stamp();
}

void Timeline::end_call(Stamp begin, Category category, std::string_view call,
                        const GemmCall& gemm) {
  if (tape_ != nullptr) tape_->end_call(category, call, gemm);
  spans_.push_back({.when = {begin, end_stamp()},
                    .waited_ns = 0,
                    .category = category,
                    .phase = open_,
                    .call = call,
                    .label = label_,
                    .layer = layer_,
                    .gemm = gemm});
}

std::optional<double> Timeline::host_ms() const {
  if (!device_) return std::nullopt;
  return static_cast<double>(step_.length() - stood_still_ns_) * 1e-6;
}

double total_ms(const PhaseTimes& times) {
  return std::accumulate(times.begin(), times.end(), 0.0);
}

double measure_note_ns(ops::DeviceClock* clock) {
  constexpr int kCalls = 2000, kRounds = 5;  // as many calls as a step of a large model has
  Timeline timeline(TimingLevel::kOps, clock);
  double least = std::numeric_limits<double>::infinity();  // the first rounds find the memory
  for (int round = 0; round < kRounds; ++round) {
    const int64_t begin = Timeline::now_ns();
    timeline.start();
    for (int i = 0; i < kCalls; ++i) {
      timeline.end_call(timeline.begin_call(), Category::kOther, "call");
    }
    timeline.stop();
    least = std::min(least, static_cast<double>(Timeline::now_ns() - begin) / kCalls);
  }
  return least;
}

}  // namespace qstep::trainer
