#include "trainer/timing/collective_times.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace qstep::trainer {

std::vector<TimeRange> going(std::span<const TimeSpan> spans, const TimeRange& step) {
  std::vector<TimeRange> ranges;
  int64_t from = step.begin;
  for (const TimeSpan& span : spans) {
    if (!is_wait(span.category)) continue;
    ranges.push_back({from, span.when.begin});
    from = span.when.end;
  }
  ranges.push_back({from, step.end});
  return union_of(std::move(ranges));
}

std::vector<TimeRange> with_waking(std::span<const CollectiveTime> collectives,
                                   std::span<const TimeSpan> spans) {
  std::vector<TimeRange> times;
  for (const CollectiveTime& c : collectives) times.push_back(c.when);
  // Waits are in order, and so are collectives, by their beginnings and but for messages by their
  // ends.
  auto first = times.begin();
  for (const TimeSpan& span : spans) {
    if (!is_wait(span.category) || span.category == Category::kDataWait) continue;
    const TimeRange& wait = span.when;
    const auto ended = [&](const TimeRange& c) { return c.end <= wait.begin; };
    first = std::find_if_not(first, times.end(), ended);
    const auto behind =
        std::find_if(first, times.end(), [&](const TimeRange& c) { return c.begin >= wait.end; });
    if (first == behind) continue;
    TimeRange& last = *std::prev(behind);
    first->begin = std::min(first->begin, wait.begin);
    last.end = std::max(last.end, wait.end);
  }
  return times;
}

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
      const bool known = record.end_ns > 0;
      it->when = known ? TimeRange{record.begin_ns, record.end_ns}
                       : TimeRange{it->when.begin, Timeline::now_ns()};
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
