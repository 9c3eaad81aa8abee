#include "ops/cuda/cuda_clock.h"

#include <chrono>
#include <cmath>

namespace qstep::ops {

CudaClock::~CudaClock() {
  for (const cudaEvent_t event : events_) (void)cudaEventDestroy(event);
}

int64_t CudaClock::add_marks(int64_t n) {
  const int64_t first = marks();
  const int64_t now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                             std::chrono::steady_clock::now().time_since_epoch())
                             .count();
  handed_over_ns_.resize(static_cast<size_t>(first + n), now_ns);
  while (events_.size() < handed_over_ns_.size()) {
    cuda_check(cudaEventCreateWithFlags(&events_.emplace_back(), cudaEventDefault),
               "cudaEventCreate");
  }
  return first;
}

// An event of a graph can only be read where it is one that the graph records for others.
int64_t CudaClock::mark() {
  const int64_t n = add_marks(1);
  const unsigned flags =
      context_.capture() != nullptr ? cudaEventRecordExternal : cudaEventRecordDefault;
  cuda_check(cudaEventRecordWithFlags(event(n), context_.stream(), flags), "cudaEventRecord");
  return n;
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
