// The three files of a report.
#pragma once

#include <string>

#include "trainer/report/report_statistics.h"

namespace qstep::trainer::report {

// report.json, and report.md and report.html made from it alone, in this folder.
void write_report(const std::string& folder, const Json& report);

// The text of report.json.
std::string report_text(const Json& report);

}  // namespace qstep::trainer::report
