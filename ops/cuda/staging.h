// Bytes on their way from any memory of the host to a device, through a copy that the device can
// fetch by itself: whoever hands them over may reuse theirs at once and need not wait until the
// device has come to them.
//
// Copies says how the device is told:
//   void copy(void* to, const char* from, int64_t bytes)   in the order of the calls, later
//   void record(int half)                                  behind the copies so far
//   void wait(int half)                                    until the device is at the last record
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

namespace qstep::ops {

template <class Copies>
class Staging {
 public:
  // memory: 2 half_bytes that the device can read, in halves that are filled in turn.
  Staging(char* memory, int64_t half_bytes, Copies copies)
      : memory_(memory), half_bytes_(half_bytes), copies_(std::move(copies)) {}

  // Waits only where more than half_bytes are on their way.
  void upload(void* to, const void* from, int64_t bytes) {
    for (int64_t done = 0; done < bytes;) {
      if (used_ == half_bytes_) turn();
      const int64_t n = std::min(bytes - done, half_bytes_ - used_);
      char* const at = memory_ + half_ * half_bytes_ + used_;
      std::memcpy(at, static_cast<const char*>(from) + done, static_cast<size_t>(n));
      copies_.copy(static_cast<char*>(to) + done, at, n);
      used_ += n;
      done += n;
    }
  }

 private:
  void turn() {
    copies_.record(half_);
    half_ = 1 - half_;
    copies_.wait(half_);
    used_ = 0;
  }

  char* memory_;
  int64_t half_bytes_;
  Copies copies_;
  int half_ = 0;
  int64_t used_ = 0;  // of this half
};

}  // namespace qstep::ops
