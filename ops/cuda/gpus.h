// The GPUs that this process may use, before a backend is made on one of them.
#pragma once

#include <cstdint>
#include <string>

namespace qstep::ops {

// How many there are; with none, why. Touches none of them.
int count_gpus(std::string& why);

// Makes one of them, from 0, the current one of this thread, on which backends are made from then
// on. Returns its place on the machine's buses ("0000:1b:00.0"), by which processes that see
// different parts of a machine tell its GPUs apart. An Error (gpu) where it cannot be used.
std::string take_gpu(int index);

// The current one of this thread; zeros where there is none.
struct GpuFacts {
  int capability = 0;  // 90 is 9.0
  int64_t memory_bytes = 0, free_bytes = 0;
};
GpuFacts current_gpu();

}  // namespace qstep::ops
