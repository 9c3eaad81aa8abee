// The peaks that the steps of a run are held against (timing.peak): from the table for a GPU that
// is in it, measured for a processor, and never another machine's.
#pragma once

#include <string>
#include <string_view>

#include "parallel/comm.h"
#include "trainer/config/config.h"
#include "trainer/machine/machines.h"

namespace qstep::trainer {

// Empty where timing.peak may be this: "measure", "off", a number of TFLOP/s above 0, or a name of
// the table.
std::string peak_problem(const std::string& peak);

// What a rank of this run can do with its threads, or with its GPU; no rates where that is not
// known. All ranks call it. device: Ops::name(), "cpu" or what the driver calls the GPU.
//
// On a processor all ranks measure at the same time, as they will compute at the same time, and the
// best of them counts: their work is equal, and a processor that others are busy on measures too
// little. The first kPeakMeasurements starts of an equal kind (processor, threads, ranks on the
// host of the first rank, build) measure; the best is kept in peak_cache.h and taken from then on.
inline constexpr int64_t kPeakMeasurements = 3;
MachineModel rank_machine(parallel::Comm& comm, const Config& config, std::string_view device);

// "467.7 GFLOP/s bf16, 233.2 GFLOP/s fp32, 34.4 GB/s memory (measured ...)"; "not known".
std::string peaks_text(const MachineModel& machine);
// Where the rates come from; empty without any.
std::string peaks_source(const MachineModel& machine);

}  // namespace qstep::trainer
