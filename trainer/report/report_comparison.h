// Folders of qstep compare in a report: their verdicts, predictions and losses, and their runs.
#pragma once

#include <string>
#include <vector>

#include "trainer/report/report_statistics.h"

namespace qstep::trainer::report {

// Whether qstep compare wrote this folder.
bool is_comparison(const std::string& folder);

// Its compare.json without single segments and sites. Error (config) for another version's.
Json read_comparison(const std::string& folder);

// Of its training runs one of each recipe, that of the first seed; none where it compared no
// losses.
std::vector<std::string> runs_of_comparison(const std::string& folder);

// "nvfp4 (emulated): 0.896 times as fast as bf16 (0.871 to 0.922, 10 blocks)." of every pair.
std::string comparison_verdict(const Json& comparison);

}  // namespace qstep::trainer::report
