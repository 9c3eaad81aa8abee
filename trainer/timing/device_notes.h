// Places among the calls of a step that a device works on beside the host: noted while the host
// hands the calls over, with times that are known behind the step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/device_clock.h"

namespace qstep::trainer {

class DeviceNotes {
 public:
  // Outlives this.
  explicit DeviceNotes(ops::DeviceClock& clock) : clock_(clock) {}

  // Forgets all notes; the first mark is here.
  void start();
  // Both return the number of the note, from 0.
  // Where the host is at now_ns: the device is there then, or when it is done with all that it had
  // been given at the last mark.
  int64_t note(int64_t now_ns);
  // Behind all calls so far: the device is there when it is done with them.
  int64_t mark();
  // The clock has made the next marks already, from number `first` on; -1: it has not.
  void use_marks(int64_t first) { next_mark_ = first; }

  // Waits until the device is at the last mark.
  void read();
  // Behind read(): when the device was at note 0, 1, ..., ns of the steady clock. They do not
  // decrease, and none is later than latest_ns: the two clocks may drift apart within a step.
  std::span<const int64_t> times(int64_t latest_ns);

 private:
  struct Note {
    int64_t not_before_ns;
    int64_t mark;
  };

  ops::DeviceClock& clock_;
  int64_t last_mark_ = 0, next_mark_ = -1;
  std::vector<Note> notes_;
  std::vector<int64_t> marks_ns_, times_ns_;
};

}  // namespace qstep::trainer
