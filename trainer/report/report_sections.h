// The items of a report about one run, each an object of report.json: trainer/report/README.md,
// documents their keys. An item that the files of a run do not have says why
// ({"available": false, "reason": ...}); nothing is ever made up.
#pragma once

#include "trainer/report/report_run.h"
#include "trainer/report/report_statistics.h"
#include "trainer/report/report_steps.h"

namespace qstep::trainer::report {

// What ran: configuration, recipe per layer, machine as far as it was recorded, and how it ended.
Json header_section(const Run& run);

// Time and where it went (report_time.cpp).
Json step_time_section(const Run& run, const StepChoice& choice);
Json breakdown_section(const Run& run, const StepChoice& choice);

// What came of it, and how much of the machine that is (report_throughput.cpp).
Json throughput_section(const Run& run, const StepChoice& choice);

// Between ranks (report_ranks.cpp).
Json comm_section(const Run& run, const StepChoice& choice);
Json ranks_section(const Run& run, const StepChoice& choice);
Json memory_section(const Run& run);

// GEMMs by what they lose, and the numeric ledger (report_precision.cpp).
Json precision_section(const Run& run, const StepChoice& choice);

// What measuring itself took (report_observer.cpp).
Json observer_section(const Run& run, const StepChoice& choice);

// Loss over steps and over tokens (report_loss.cpp).
Json loss_section(const Run& run);

// Wall time of all starts in buckets that add up to it (report_goodput.cpp).
Json goodput_section(const Run& run, const StepChoice& choice);

// All of them, of a log that another trainer wrote (report_peer.cpp): what its lines do not say is
// missing.
Json peer_sections(const Run& run, const StepChoice& choice);

// Several of them: the run against the first of the report (report_compare.cpp). Both are whole
// runs of report.json; no speed is claimed where a format is emulated.
Json compare_section(const Json& first, const Json& other);

}  // namespace qstep::trainer::report
