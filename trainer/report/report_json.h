// report.json: everything a report says about some runs. Both renderings are made from it alone.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "trainer/report/report_run.h"
#include "trainer/report/report_statistics.h"

namespace qstep::trainer::report {

inline constexpr int kReportSchema = 1;

// {schema, verdict, comparisons, runs: [{name, verdict, header, step_time, breakdown, ...}]}; at
// least one run or comparison (report_comparison.h). Runs whose folders have the same name are told
// apart by more of their paths.
Json report_json(std::span<const Run> runs, const Json& comparisons = Json::array());

// Of folders of qstep train and qstep compare, in this order, and of logs (peer_log.h). Warns on
// stderr of lines that are left out.
Json report_of_folders(const std::vector<std::string>& folders,
                       const std::vector<std::string>& logs = {});

}  // namespace qstep::trainer::report
