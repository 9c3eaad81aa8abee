// Logs of other trainers, read into runs that a report shows beside ours: step, time, loss, rates,
// as far as their lines say them.
#pragma once

#include <string>

#include "trainer/report/report_run.h"

namespace qstep::trainer::report {

// Steps in the order of the log, the last line of each; what the log does not say stays missing.
// Error (config) where no line is of a known tool, with the tools.
Run read_peer_log(const std::string& path);

}  // namespace qstep::trainer::report
