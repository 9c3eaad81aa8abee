// Where a rank stands: the body of a heartbeat, and the answer to a query.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/collective_log.h"
#include "parallel/phase_limits.h"
#include "parallel/wire.h"

namespace qstep::parallel {

struct Standing {
  Phase phase = Phase::kStart;
  int64_t step = 0;
  double in_phase_s = 0;
  double limit_s = 0;                         // of this phase
  std::vector<LoggedCollective> collectives;  // CollectiveLog::recent()
};

std::string pack(const Standing& standing);
// Throws WireError.
Standing unpack_standing(std::string_view bytes);

// "in step 17, in the phase save"
std::string describe(const Standing& standing);
// "reduce_scatter 57 of world (4096 bytes, bf16)"
std::string describe(const LoggedCollective& collective);

}  // namespace qstep::parallel
