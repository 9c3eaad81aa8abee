#include "trainer/run/trace_events.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <string>
#include <vector>

namespace qstep::trainer {

namespace {

// Outer spans ahead of those inside them, as the format wants them where both begin at once.
std::vector<const TimeSpan*> in_order(std::span<const TimeSpan> spans) {
  std::vector<const TimeSpan*> order;
  order.reserve(spans.size());
  for (const TimeSpan& span : spans) order.push_back(&span);
  std::stable_sort(order.begin(), order.end(), [](const TimeSpan* a, const TimeSpan* b) {
    return a->when.begin != b->when.begin ? a->when.begin < b->when.begin
                                          : a->when.end > b->when.end;
  });
  return order;
}

void trace_call(TraceFile& file, const TimeSpan& span) {
  const std::string name =
      span.label.empty() ? std::string(span.call) : fmt::format("{} {}", span.call, span.label);
  JsonText& args = file.open_slice(Lane::kMain, name, category_name(span.category), span.when);
  if (span.layer >= 0) args.put("layer", span.layer);
  if (span.gemm.m > 0) {
    const GemmCall& gemm = span.gemm;
    args.put("m", gemm.m);
    args.put("n", gemm.n);
    args.put("k", gemm.k);
    args.put("format_a", format_name(gemm.a));
    args.put("format_b", format_name(gemm.b));
    args.put("tflops", gemm.flops() / static_cast<double>(span.own_ns()) * 1e-3);
  }
  file.close();
}

// Equal on all ranks for the same collective and the same neighbours in its group.
uint64_t flow_id(const CollectiveTime& c, int64_t start, int first_rank) {
  const std::string text = fmt::format("{} {} {} {}", start, c.group, c.sequence, first_rank);
  return XXH3_64bits(text.data(), text.size());
}

}  // namespace

void trace_step(TraceFile& file, int64_t step, const Timeline& timeline) {
  file.open_slice(Lane::kMain, fmt::format("step {}", step), kStepCategory, timeline.step())
      .put("step", step);
  file.close();
  const std::vector<const TimeSpan*> spans = in_order(timeline.spans());
  auto at = spans.begin();
  for (const PhaseSpan& phase : timeline.phases()) {
    file.open_slice(Lane::kMain, kPhaseNames[static_cast<size_t>(phase.phase)], "phase",
                    phase.when);
    file.close();
    const auto phase_end = std::find_if(
        at, spans.end(), [&](const TimeSpan* s) { return s->when.begin >= phase.when.end; });
    while (at != phase_end) {
      const int64_t layer = (*at)->layer;
      TimeRange when = (*at)->when;
      const auto layer_end =
          std::find_if(at, phase_end, [&](const TimeSpan* s) { return s->layer != layer; });
      for (auto it = at; it != layer_end; ++it) when.end = std::max(when.end, (*it)->when.end);
      if (layer >= 0) {
        file.open_slice(Lane::kMain, fmt::format("layer {}", layer), "layer", when)
            .put("layer", layer);
        file.close();
      }
      for (; at != layer_end; ++at) trace_call(file, **at);
    }
  }
}

void trace_collectives(TraceFile& file, std::span<const CollectiveTime> collectives,
                       const NamedGroups& groups, int64_t start) {
  for (const CollectiveTime& c : collectives) {
    const auto group = groups.find(c.group);
    if (group == groups.end()) continue;
    const NamedGroup& g = group->second;
    JsonText& args = file.open_slice(Lane::kCommunication, c.operation, "collective", c.when);
    args.put("group", g.name);
    args.put("sequence", c.sequence);
    args.put("bytes", c.bytes);
    file.close();
    // No rank ends before all have begun, so that no arrow leads back in time.
    if (g.rank + 1 < g.size) {
      file.flow_begin(Lane::kCommunication, flow_id(c, start, g.rank), c.when.begin);
    }
    if (g.rank > 0) {
      file.flow_end(Lane::kCommunication, flow_id(c, start, g.rank - 1), c.when.end - 1);
    }
  }
}

}  // namespace qstep::trainer
