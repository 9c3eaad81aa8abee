#include "trainer/timing/device_notes.h"

#include <algorithm>
#include <limits>

namespace qstep::trainer {

void DeviceNotes::start() {
  notes_.clear();
  clock_.start();
  last_mark_ = clock_.mark();
}

int64_t DeviceNotes::note(int64_t now_ns) {
  notes_.push_back({now_ns, last_mark_});
  return static_cast<int64_t>(notes_.size()) - 1;
}

int64_t DeviceNotes::mark() {
  last_mark_ = next_mark_ < 0 ? clock_.mark() : next_mark_++;
  return note(std::numeric_limits<int64_t>::min());
}

void DeviceNotes::read() {
  marks_ns_.resize(static_cast<size_t>(last_mark_ + 1));
  clock_.read(marks_ns_);
}

std::span<const int64_t> DeviceNotes::times(int64_t latest_ns) {
  times_ns_.clear();
  for (const Note& note : notes_) {
    const int64_t reached = marks_ns_[static_cast<size_t>(note.mark)];
    times_ns_.push_back(std::min(latest_ns, std::max(note.not_before_ns, reached)));
  }
  return times_ns_;
}

}  // namespace qstep::trainer
