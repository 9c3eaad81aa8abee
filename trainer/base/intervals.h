// Arithmetic of stretches of time, [begin, end) in ns of one clock: what part of the communication
// a step computes beside, and what part it stands still for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace qstep::trainer {

struct TimeRange {
  int64_t begin = 0, end = 0;  // ns

  int64_t length() const { return end - begin; }
  friend bool operator==(const TimeRange&, const TimeRange&) = default;
};

// What x and y share; empty (length 0) where they share nothing.
inline TimeRange intersection(const TimeRange& x, const TimeRange& y) {
  const int64_t begin = std::max(x.begin, y.begin);
  return {begin, std::max(begin, std::min(x.end, y.end))};
}

// The stretches in which at least one of them runs: in order, disjoint, neither empty nor touching.
std::vector<TimeRange> union_of(std::vector<TimeRange> intervals);

// Of x, what lies in such a union; ns.
int64_t overlap(const TimeRange& x, std::span<const TimeRange> disjoint);

// Of each of `intervals`, what lies outside of such a union, in ns. Time in which several of them
// run is divided among these equally, so that the sum is the length of their union outside of it.
std::vector<double> exposed(std::span<const TimeRange> intervals,
                            std::span<const TimeRange> disjoint);

}  // namespace qstep::trainer
