#include "trainer/timing/breakdown.h"

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

}  // namespace qstep::trainer
