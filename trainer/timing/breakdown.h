// What a step's time was spent on, worked out from its timeline.
#pragma once

#include <array>
#include <span>

#include "trainer/timing/timeline.h"

namespace qstep::trainer {

using Breakdown = std::array<double, kCategoryNames.size()>;  // ms, in the order of Category

// Every span counts by itself, without the waits in it; what no span covers is kHostGap. The sum is
// the length of the step.
Breakdown breakdown(std::span<const TimeSpan> spans, const TimeRange& step);

}  // namespace qstep::trainer
