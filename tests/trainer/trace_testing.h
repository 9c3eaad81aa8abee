// Traces as tests read them back.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tests/trainer/run_records.h"
#include "trainer/run/trace_file.h"

namespace qstep::trainer::testing {

using Json = nlohmann::json;

// The events of a file; of one that a kill has cut, those that are whole. Null: not a trace.
inline Json events_of(const std::string& path) {
  const std::string text = text_of(path);
  Json events = Json::parse(text, nullptr, false);
  if (!events.is_discarded()) return events;
  return Json::parse(text.substr(0, text.rfind(",\n")) + "]", nullptr, false);
}

inline int64_t ns_of(const Json& us) { return std::llround(us.get<double>() * 1e3); }

struct TracedSlice {
  Json event;
  int64_t begin = 0, end = 0;  // ns
  int64_t waited = 0;          // of it, in waits inside
  int depth = 0;

  std::string name() const { return event.at("name"); }
  std::string category() const { return event.at("cat"); }
  bool is_wait() const { return name().starts_with("wait"); }
  double own_ms() const { return static_cast<double>(end - begin - waited) * 1e-6; }
};

// The slices of a lane in order, each inside the one that was open before it, or behind it: expects
// that none reaches out of the one around it.
inline std::vector<TracedSlice> slices_of(const Json& events, Lane lane) {
  std::vector<TracedSlice> slices;
  for (const Json& event : events) {
    if (event.at("ph") != "X" || event.at("tid") != static_cast<int>(lane)) continue;
    const int64_t begin = ns_of(event.at("ts"));
    slices.push_back({.event = event, .begin = begin, .end = begin + ns_of(event.at("dur"))});
  }
  std::stable_sort(slices.begin(), slices.end(), [](const TracedSlice& a, const TracedSlice& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  std::vector<size_t> open;
  for (size_t i = 0; i < slices.size(); ++i) {
    TracedSlice& slice = slices[i];
    while (!open.empty() && slices[open.back()].end <= slice.begin) open.pop_back();
    slice.depth = static_cast<int>(open.size());
    if (!open.empty()) {
      EXPECT_LE(slice.end, slices[open.back()].end) << slice.event << "\n"
                                                    << slices[open.back()].event;
    }
    if (slice.is_wait()) {
      for (const size_t around : open) slices[around].waited += slice.end - slice.begin;
    }
    open.push_back(i);
  }
  return slices;
}

// Time of the calls and waits by category, the waits inside of a call taken from it.
inline std::map<std::string, double> times_by_category(const std::vector<TracedSlice>& slices) {
  std::map<std::string, double> ms;
  for (const TracedSlice& slice : slices) {
    const std::string category = slice.category();
    if (category == kStepCategory || category == "phase" || category == "layer") continue;
    if (category != "host") ms[category] += slice.own_ms();
  }
  return ms;
}

// The steps whose slices the lane has, in order.
inline std::vector<int64_t> steps_of(const std::vector<TracedSlice>& slices) {
  std::vector<int64_t> steps;
  for (const TracedSlice& slice : slices) {
    if (slice.category() == kStepCategory) steps.push_back(slice.event.at("args").at("step"));
  }
  return steps;
}

// Of all files together: how often each arrow begins and ends.
struct Arrows {
  std::map<std::string, int> begun, ended;
};
inline Arrows arrows_of(const std::vector<Json>& traces) {
  Arrows arrows;
  for (const Json& events : traces) {
    for (const Json& event : events) {
      if (event.at("ph") == "s") ++arrows.begun[event.at("id")];
      if (event.at("ph") == "f") ++arrows.ended[event.at("id")];
    }
  }
  return arrows;
}

}  // namespace qstep::trainer::testing
