#include "trainer/timing/recordings.h"

#include <algorithm>

namespace qstep::trainer {

Recordings::Making::Making(Recordings& recordings, ops::Recorder& recorder, Part& part)
    : recordings_(recordings), recorder_(recorder), part_(part) {
  begin_stretch();
  recordings_.making_ = this;
}

Recordings::Making::~Making() {
  recordings_.making_ = nullptr;
  recordings_.timeline_.record(nullptr);
}

void Recordings::Making::begin_stretch() {
  tape_ = std::make_unique<TimelineTape>();
  recordings_.timeline_.record(tape_.get());
  capture_ = recorder_.begin();
}

void Recordings::Making::end_stretch() {
  recordings_.timeline_.record(nullptr);
  stretches_.push_back({.recording = std::exchange(capture_, nullptr)->end(),
                        .tape = std::move(*tape_),
                        .unrecorded = nullptr});
}

void Recordings::Making::finish() {
  end_stretch();
  part_ = std::move(stretches_);
}

// One without stretches was left by an exception.
bool Recordings::valid(const Part& part) {
  return !part.empty() && std::all_of(part.begin(), part.end(), [](const Stretch& stretch) {
    return stretch.recording == nullptr || stretch.recording->valid();
  });
}

void Recordings::run_again(const Part& part, const ops::Moment& moment) {
  Timeline::Stamp open_call = 0;  // a call may begin in one stretch and end in another
  for (const Stretch& stretch : part) {
    if (stretch.recording != nullptr) {
      const int64_t now_ns = Timeline::now_ns();
      const int64_t first_mark = stretch.recording->run(moment);
      timeline_.handed_over_before({.first_mark = first_mark, .at_ns = now_ns});
    }
    stretch.tape.play(timeline_, open_call);
    timeline_.handed_over_before({});
    if (stretch.unrecorded) stretch.unrecorded();
  }
}

}  // namespace qstep::trainer
