// When a device that works beside the host gets to places among the calls it is given.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

namespace qstep::ops {

class DeviceClock {
 public:
  virtual ~DeviceClock() = default;

  // Forgets all marks.
  virtual void start() = 0;
  // The place between the calls so far and the next one: its number, from 0. Waits for nothing;
  // allocates nothing once as many were made between two starts.
  virtual int64_t mark() = 0;
  // When the device was at mark 0, 1, ..., as many as there are: ns of the host's steady clock, as
  // place_on_host_clock has it. Waits until the device is at the last one.
  virtual void read(std::span<int64_t> times_ns) = 0;
};

// A device's clock and the host's differ by an unknown offset. Place i was handed over when the
// host's clock was at handed_over_ns[i], and the device, which cannot have been there earlier, was
// there when its own was at times_ns[i]: these become times of the host's clock with the smallest
// offset that is possible. The quickest hand-over then took no time; none is ahead of its own.
inline void place_on_host_clock(std::span<int64_t> times_ns,
                                std::span<const int64_t> handed_over_ns) {
  int64_t offset = std::numeric_limits<int64_t>::min();
  for (size_t i = 0; i < times_ns.size(); ++i) {
    offset = std::max(offset, handed_over_ns[i] - times_ns[i]);
  }
  for (int64_t& time : times_ns) time += offset;
}

}  // namespace qstep::ops
