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
  void enter(Phase phase) { entries_.push_back({.enters = true, .phase = phase}); }
  // A call was noted.
  void call(Category category, std::string_view call, std::string_view label, int64_t layer,
            const GemmCall& gemm) {
    entries_.push_back(
        {.category = category, .call = call, .label = label, .layer = layer, .gemm = gemm});
  }

  // What the timeline was at when the recording ended: calls behind it may be of that too.
  void end(int64_t layer, std::string_view label) {
    last_layer_ = layer;
    last_label_ = label;
  }

  // The same again, on `timeline`.
  void play(Timeline& timeline) const {
    for (const Entry& e : entries_) {
      if (e.enters) {
        timeline.enter(e.phase);
        continue;
      }
      timeline.label(e.layer, e.label);
      timeline.end_call(timeline.begin_call(), e.category, e.call, e.gemm);
    }
    timeline.label(last_layer_, last_label_);
  }

 private:
  struct Entry {
    bool enters = false;
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
