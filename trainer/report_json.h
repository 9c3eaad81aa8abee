// report.json: everything a report says about some runs. Both renderings are made from it alone.
#pragma once

#include <span>

#include "trainer/report_run.h"
#include "trainer/report_statistics.h"

namespace qstep::trainer::report {

inline constexpr int kReportSchema = 1;

// {schema, verdict, runs: [{name, verdict, header, step_time, breakdown, ...}]}; at least one run.
// Runs whose folders have the same name are told apart by more of their paths.
Json report_json(std::span<const Run> runs);

}  // namespace qstep::trainer::report
