// The world that the tests of a program run in (world_main.cpp): all ranks run all tests, in the
// same order.
#pragma once

#include "parallel/comm.h"

namespace qstep::parallel {

Comm& world();

}  // namespace qstep::parallel
