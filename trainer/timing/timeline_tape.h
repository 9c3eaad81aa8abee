// What a timeline noted of calls while these were recorded (recordings.h): noted again whenever the
// device gets them again, which happens without any of them being made.
#pragma once

#include <string_view>
#include <vector>

#include "trainer/timing/timeline.h"

namespace qstep::trainer {

class TimelineTape {
 public:
  // The timeline entered this phase.
  void enter(Phase phase) { entries_.push_back({.kind = Kind::kPhase, .phase = phase}); }
  // A call began, for this; calls do not lie within each other.
  void begin_call(int64_t layer, std::string_view label) {
    entries_.push_back({.kind = Kind::kBegin, .label = label, .layer = layer});
  }
  // It ended.
  void end_call(Category category, std::string_view call, const GemmCall& gemm) {
    entries_.push_back({.kind = Kind::kEnd, .category = category, .call = call, .gemm = gemm});
  }

  // What the timeline was at when the recording ended: calls behind it may be of that too.
  void end(int64_t layer, std::string_view label) {
    last_layer_ = layer;
    last_label_ = label;
  }

  // The same again, on `timeline`. open_call: when a call began that has not ended, by then and
  // behind it.
  void play(Timeline& timeline, Timeline::Stamp& open_call) const {
    for (const Entry& e : entries_) {
      switch (e.kind) {
        case Kind::kPhase:
          timeline.enter(e.phase);
          break;
        case Kind::kBegin:
          timeline.label(e.layer, e.label);
          open_call = timeline.begin_call();
          break;
        case Kind::kEnd:
          timeline.end_call(open_call, e.category, e.call, e.gemm);
          break;
      }
    }
    timeline.label(last_layer_, last_label_);
  }

 private:
  enum class Kind : uint8_t { kPhase, kBegin, kEnd };
  struct Entry {
    Kind kind = Kind::kPhase;
    Phase phase = Phase::kOther;
    Category category = Category::kOther;
    std::string_view call = {}, label = {};
    int64_t layer = -1;
    GemmCall gemm = {};
  };
  std::vector<Entry> entries_;
  int64_t last_layer_ = -1;
  std::string_view last_label_;
};

}  // namespace qstep::trainer
