#include "trainer/base/intervals.h"

namespace qstep::trainer {

std::vector<TimeRange> union_of(std::vector<TimeRange> intervals) {
  std::erase_if(intervals, [](const TimeRange& x) { return x.length() <= 0; });
  std::sort(intervals.begin(), intervals.end(),
            [](const TimeRange& a, const TimeRange& b) { return a.begin < b.begin; });
  size_t n = 0;
  for (const TimeRange& x : intervals) {
    if (n > 0 && x.begin <= intervals[n - 1].end) {
      intervals[n - 1].end = std::max(intervals[n - 1].end, x.end);
    } else {
      intervals[n++] = x;
    }
  }
  intervals.resize(n);
  return intervals;
}

int64_t overlap(const TimeRange& x, std::span<const TimeRange> disjoint) {
  auto it = std::partition_point(disjoint.begin(), disjoint.end(),
                                 [&](const TimeRange& y) { return y.end <= x.begin; });
  int64_t ns = 0;
  for (; it != disjoint.end() && it->begin < x.end; ++it) ns += intersection(x, *it).length();
  return ns;
}

std::vector<double> exposed(std::span<const TimeRange> intervals,
                            std::span<const TimeRange> disjoint) {
  std::vector<int64_t> bounds;
  for (const TimeRange& x : intervals) bounds.insert(bounds.end(), {x.begin, x.end});
  std::sort(bounds.begin(), bounds.end());
  std::vector<size_t> by_begin(intervals.size());
  for (size_t i = 0; i < by_begin.size(); ++i) by_begin[i] = i;
  std::sort(by_begin.begin(), by_begin.end(),
            [&](size_t a, size_t b) { return intervals[a].begin < intervals[b].begin; });

  // Between two neighbouring bounds the same ones run.
  std::vector<double> ns(intervals.size());
  std::vector<size_t> running;
  size_t next = 0;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    const TimeRange piece{bounds[i], bounds[i + 1]};
    if (piece.length() == 0) continue;
    std::erase_if(running, [&](size_t r) { return intervals[r].end <= piece.begin; });
    for (; next < by_begin.size() && intervals[by_begin[next]].begin <= piece.begin; ++next) {
      if (intervals[by_begin[next]].end > piece.begin) running.push_back(by_begin[next]);
    }
    if (running.empty()) continue;
    const auto outside = static_cast<double>(piece.length() - overlap(piece, disjoint));
    for (const size_t r : running) ns[r] += outside / static_cast<double>(running.size());
  }
  return ns;
}

}  // namespace qstep::trainer
