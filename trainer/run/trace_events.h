// What a rank noted of a step, as events of its trace.
#pragma once

#include <cstdint>
#include <span>

#include "trainer/backend/rank_groups.h"
#include "trainer/run/trace_file.h"
#include "trainer/timing/collective_times.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

// The lane of the thread that computes, one inside the other: step, phases, layers, calls, waits.
// The category of calls and waits is that of the breakdown; a call's own time is without the waits
// in it. `timeline` is that of the last step, at level ops.
void trace_step(TraceFile& file, int64_t step, const Timeline& timeline);

// The lane of communication. Arrows lead through the ranks of a group: each collective's from the
// beginning on rank r to the end on rank r + 1. `start`, equal on all ranks and another one in
// every process, keeps the collectives of several starts apart.
void trace_collectives(TraceFile& file, std::span<const CollectiveTime> collectives,
                       const NamedGroups& groups, int64_t start);

}  // namespace qstep::trainer
