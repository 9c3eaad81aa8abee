// The last collectives of this rank, in memory: who entered which one names the rank that a hang is
// waiting for.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/collective_observer.h"

namespace qstep::parallel {

// Of the steady clock.
double steady_now_s();

// A CollectiveRecord that stands by itself.
struct LoggedCollective {
  std::string group;
  uint64_t sequence = 0;
  std::string operation;
  int64_t bytes = 0;
  ops::Dtype dtype = ops::Dtype::kU8;
  int peer = -1;
  bool inside = false;  // entered and not left
  double age_s = 0;     // since it was entered
};

// Written by the communication thread, read by any other.
class CollectiveLog {
 public:
  // Keeps the last `capacity` collectives, and the last one of every group.
  explicit CollectiveLog(size_t capacity = 256) : ring_(capacity) {}

  void entered(const CollectiveRecord& record);
  void left(const CollectiveRecord& record);

  // In the order of their beginnings: the last `n` of all, and before these every other that is
  // still inside or the last of its group.
  std::vector<LoggedCollective> recent(size_t n) const;

  // Grows with every call of entered() and left().
  uint64_t version() const;

 private:
  struct Entry {
    LoggedCollective collective;
    double entered_s = 0;
    uint64_t number = 0;  // in the order of entered(), from 1; 0: none yet
  };

  mutable std::mutex mutex_;
  std::vector<Entry> ring_;
  std::vector<Entry> last_;  // of every group; its sends and receives count as a group of their own
  uint64_t n_entered_ = 0;
  uint64_t version_ = 0;
};

}  // namespace qstep::parallel
