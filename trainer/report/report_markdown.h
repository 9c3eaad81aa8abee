// A report as Markdown: its tables, for terminals, mail and review comments.
#pragma once

#include <string>

#include "trainer/report/report_statistics.h"

namespace qstep::trainer::report {

// report: what report_json returns.
std::string report_markdown(const Json& report);

}  // namespace qstep::trainer::report
