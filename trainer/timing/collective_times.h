// When this rank was in collectives: what a run hears of its own communication. Stands in front of
// the watchdog and hands on to it all that it hears.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/collective_observer.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

// One collective of this rank, or the part of one that lies in a step.
struct CollectiveTime {
  TimeRange when;  // of the steady clock, from entered to left, or as the world says
  bool ended = false;
  std::string group;           // CollectiveRecord::group
  std::string_view operation;  // a literal
  uint64_t sequence = 0;
  int64_t bytes = 0;
};

// When a step with these spans did not stand still: all of it but the waits. Host gaps count as
// going on: what runs beside them is not waited for.
std::vector<TimeRange> going(std::span<const TimeSpan> spans, const TimeRange& step);

// When they took time of a step with these spans: a wait for other ranks begins with waking the
// thread of communication and ends with waking the one that waits, which belong to the first and
// the last collective in it. One without a collective belongs to none. `collectives` as take() has
// them.
std::vector<TimeRange> with_waking(std::span<const CollectiveTime> collectives,
                                   std::span<const TimeSpan> spans);

class CollectiveTimes final : public parallel::CollectiveObserver {
 public:
  // next, which may be null, outlives this.
  explicit CollectiveTimes(parallel::CollectiveObserver* next) : next_(next) {}

  void entered(const parallel::CollectiveRecord& record) override;
  void left(const parallel::CollectiveRecord& record) override;
  std::optional<parallel::Failure> failure() override {
    return next_ == nullptr ? std::nullopt : next_->failure();
  }

  // What of them lies in `step`, in the order of their beginnings: nothing (an empty `when`) of one
  // that ended ahead of it; one that goes on behind it has not ended and comes again with the next
  // step. Forgets those that ended.
  std::vector<CollectiveTime> take(const TimeRange& step);

 private:
  parallel::CollectiveObserver* next_;
  std::mutex mutex_;
  std::vector<CollectiveTime> heard_;  // `end` of those that have not ended is of no use
};

}  // namespace qstep::trainer
