// The machine of a run as far as its files describe it: the peaks that its steps were held against.
#pragma once

#include "trainer/machine/machines.h"
#include "trainer/report/report_run.h"
#include "trainer/report/report_statistics.h"

namespace qstep::trainer::report {

// Of a rank at the last start; no rates where none were recorded.
MachineModel recorded_machine(const Run& run);

// {machine, source, flops_per_s: {bf16: ...}, memory_bytes_per_s}, or what is missing.
Json peaks_json(const Run& run);

}  // namespace qstep::trainer::report
