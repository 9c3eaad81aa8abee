// A report as one page that needs nothing else: style, script and report.json are in it.
#pragma once

#include <string>

#include "trainer/report/report_statistics.h"

namespace qstep::trainer::report {

// report: what report_json returns.
std::string report_html(const Json& report);

}  // namespace qstep::trainer::report
