// A world whose ranks are threads of one process, for tests of what runs on several ranks.
//
// Every rank has one queue of operations, those of groups that it was split into included. An
// operation runs when it is in front on all ranks that take part, in the thread that came last; a
// send therefore waits for its receive. Ranks that disagree about an operation, wait for each other
// in a circle or for one that has ended get an Error instead of hanging.
#pragma once

#include <functional>

#include "parallel/comm.h"

namespace qstep::test {

// Calls f(comm) on `n_ranks` threads, rank 0, 1, ... of one world, and returns when all have ended.
// Throws what the first of them (in time) threw. A rank that has ended leaves the others an Error
// (peer died) where they wait for it.
void run_ranks(int n_ranks, const std::function<void(parallel::Comm&)>& f);

}  // namespace qstep::test
