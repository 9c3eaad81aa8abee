#include "trainer/collective_times.h"

#include <algorithm>

#include "trainer/timeline.h"

namespace qstep::trainer {

void CollectiveTimes::entered(const parallel::CollectiveRecord& record) {
  {
    const std::lock_guard lock(mutex_);
    heard_.push_back({.when = {Timeline::now_ns(), 0},
                      .ended = false,
                      .group = std::string(record.group),
                      .operation = record.operation,
                      .sequence = record.sequence,
                      .bytes = record.bytes});
  }
  if (next_ != nullptr) next_->entered(record);
}

void CollectiveTimes::left(const parallel::CollectiveRecord& record) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(heard_.begin(), heard_.end(), [&](const CollectiveTime& c) {
      return !c.ended && c.sequence == record.sequence && c.operation == record.operation &&
             c.group == record.group;
    });
    if (it != heard_.end()) {
      it->when.end = Timeline::now_ns();
      it->ended = true;
    }
  }
  if (next_ != nullptr) next_->left(record);
}

std::vector<CollectiveTime> CollectiveTimes::take(const TimeRange& step) {
  const std::lock_guard lock(mutex_);
  std::vector<CollectiveTime> taken;
  for (const CollectiveTime& c : heard_) {
    const bool ended = c.ended && c.when.end <= step.end;
    if (c.when.begin >= step.end) continue;
    taken.push_back(c);
    taken.back().ended = ended;
    taken.back().when = intersection({c.when.begin, ended ? c.when.end : step.end}, step);
  }
  std::erase_if(heard_, [&](const CollectiveTime& c) { return c.ended && c.when.end <= step.end; });
  return taken;
}

}  // namespace qstep::trainer
