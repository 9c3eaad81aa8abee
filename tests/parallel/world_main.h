// The world that the tests of a program run in (world_main.cpp): all ranks run all tests, in the
// same order.
#pragma once

#include <memory>
#include <string>

#include "parallel/comm.h"

namespace qstep::parallel {

Comm& world();

// How a program makes it. The world under test ends first.
struct Worlds {
  std::unique_ptr<Comm> hosts;  // what a world of GPUs needs; may be empty
  std::unique_ptr<Comm> tested;
};
Worlds make_worlds(const std::string& kind, int n_ranks);

}  // namespace qstep::parallel
