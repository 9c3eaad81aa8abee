#include "trainer/breakdown.h"

#include <algorithm>

namespace qstep::trainer {

Breakdown breakdown(std::span<const TimeSpan> spans, const TimeRange& step) {
  std::array<int64_t, kCategoryNames.size()> ns{};
  int64_t covered = 0;
  for (const TimeSpan& span : spans) {
    ns[static_cast<size_t>(span.category)] += span.own_ns();
    covered += span.own_ns();
  }
  ns[static_cast<size_t>(Category::kHostGap)] += step.length() - covered;
  Breakdown ms;
  std::transform(ns.begin(), ns.end(), ms.begin(),
                 [](int64_t n) { return static_cast<double>(n) * 1e-6; });
  return ms;
}

std::vector<TimeRange> computing(std::span<const TimeSpan> spans) {
  std::vector<TimeRange> waits, computed;
  for (const TimeSpan& span : spans) {
    if (is_wait(span.category)) {
      waits.push_back(span.when);  // ahead of the call that it is in
      continue;
    }
    int64_t from = span.when.begin;
    const auto inner = std::partition_point(
        waits.begin(), waits.end(), [&](const TimeRange& w) { return w.begin < span.when.begin; });
    for (auto wait = inner; wait != waits.end(); ++wait) {
      computed.push_back({from, wait->begin});
      from = wait->end;
    }
    computed.push_back({from, span.when.end});
  }
  return union_of(std::move(computed));
}

}  // namespace qstep::trainer
