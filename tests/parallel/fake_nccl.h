// What tests see of fake_nccl.cpp.
#pragma once

#include "parallel/comm.h"

namespace qstep::parallel {

// The processors, over which it sends; after make_worlds().
Comm& fake_hosts();
// Communicators that were given up.
int n_aborted();

}  // namespace qstep::parallel
