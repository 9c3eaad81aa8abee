#include "parallel/collective_log.h"

#include <algorithm>
#include <chrono>
#include <map>

namespace qstep::parallel {

namespace {

bool same(const LoggedCollective& logged, const CollectiveRecord& record) {
  return logged.sequence == record.sequence && logged.peer == record.peer &&
         logged.operation == record.operation && logged.group == record.group;
}

bool same_group(const LoggedCollective& logged, const CollectiveRecord& record) {
  return (logged.peer < 0) == (record.peer < 0) && logged.group == record.group;
}

// Assigning texts reuses their memory: once warm, nothing is allocated.
void assign(LoggedCollective& logged, const CollectiveRecord& record) {
  logged.group = record.group;
  logged.sequence = record.sequence;
  logged.operation = record.operation;
  logged.bytes = record.bytes;
  logged.dtype = record.dtype;
  logged.peer = record.peer;
  logged.inside = true;
}

}  // namespace

double steady_now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void CollectiveLog::entered(const CollectiveRecord& record) {
  const std::lock_guard lock(mutex_);
  ++version_;
  Entry& entry = ring_[n_entered_++ % ring_.size()];
  assign(entry.collective, record);
  entry.entered_s = steady_now_s();
  entry.number = n_entered_;
  const auto last = std::find_if(last_.begin(), last_.end(),
                                 [&](const Entry& e) { return same_group(e.collective, record); });
  if (last == last_.end()) {
    last_.push_back(entry);
  } else {
    *last = entry;
  }
}

void CollectiveLog::left(const CollectiveRecord& record) {
  const std::lock_guard lock(mutex_);
  ++version_;
  const uint64_t n_kept = std::min<uint64_t>(n_entered_, ring_.size());
  for (uint64_t back = 1; back <= n_kept; ++back) {  // usually the last
    Entry& entry = ring_[(n_entered_ - back) % ring_.size()];
    if (!entry.collective.inside || !same(entry.collective, record)) continue;
    entry.collective.inside = false;
    break;
  }
  for (Entry& entry : last_) {
    if (same(entry.collective, record)) entry.collective.inside = false;
  }
}

std::vector<LoggedCollective> CollectiveLog::recent(size_t n) const {
  const std::lock_guard lock(mutex_);
  std::map<uint64_t, const Entry*> chosen;  // by number
  for (const Entry& entry : last_) chosen[entry.number] = &entry;
  for (const Entry& entry : ring_) {
    const bool is_late = entry.number > 0 && entry.number + n > n_entered_;
    if (is_late || entry.collective.inside) chosen[entry.number] = &entry;
  }
  std::vector<LoggedCollective> collectives;
  for (const auto& [number, entry] : chosen) {
    collectives.push_back(entry->collective);
    collectives.back().age_s = steady_now_s() - entry->entered_s;
  }
  return collectives;
}

uint64_t CollectiveLog::version() const {
  const std::lock_guard lock(mutex_);
  return version_;
}

}  // namespace qstep::parallel
