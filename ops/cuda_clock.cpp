#include "ops/cuda_clock.h"

#include <chrono>
#include <cmath>

#include "ops/cuda_context.h"

namespace qstep::ops {

CudaClock::~CudaClock() {
  for (const cudaEvent_t event : events_) (void)cudaEventDestroy(event);
}

int64_t CudaClock::mark() {
  const size_t n = handed_over_ns_.size();
  if (n == events_.size()) {
    cuda_check(cudaEventCreateWithFlags(&events_.emplace_back(), cudaEventDefault),
               "cudaEventCreate");
  }
  handed_over_ns_.push_back(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                std::chrono::steady_clock::now().time_since_epoch())
                                .count());
  cuda_check(cudaEventRecord(events_[n], stream_), "cudaEventRecord");
  return static_cast<int64_t>(n);
}

// cudaEventElapsedTime gives milliseconds as a float, half a microsecond fine.
void CudaClock::read(std::span<int64_t> times_ns) {
  check(times_ns.size() == handed_over_ns_.size(), "clock: not as many times as marks");
  if (times_ns.empty()) return;
  cuda_check(cudaEventSynchronize(events_[times_ns.size() - 1]), "cudaEventSynchronize");
  for (size_t i = 0; i < times_ns.size(); ++i) {
    float ms = 0;
    cuda_check(cudaEventElapsedTime(&ms, events_[0], events_[i]), "cudaEventElapsedTime");
    times_ns[i] = std::llround(static_cast<double>(ms) * 1e6);
  }
  place_on_host_clock(times_ns, handed_over_ns_);
}

}  // namespace qstep::ops
