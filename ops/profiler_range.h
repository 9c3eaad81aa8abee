// Names for stretches of a run, which profilers show beside what they record themselves (NVTX:
// Nsight Systems, Nsight Compute). Without a profiler a stretch costs a look at an empty slot;
// built without the CUDA toolkit's NVTX headers there are none.
#pragma once

#include <cstdint>
#include <string_view>

namespace qstep::ops {

// One row of a profiler's view: stretches one after the other, on the thread that names them.
class ProfilerRange {
 public:
  explicit ProfilerRange(const char* row);  // a literal
  ~ProfilerRange();
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;

  // The stretch so far ends and the next one begins: a whole literal, and a number to tell it from
  // others of its name, as the payload.
  void begin(std::string_view name, int64_t number);
  void end();

 private:
  void* row_ = nullptr;
  bool open_ = false;
};

}  // namespace qstep::ops
