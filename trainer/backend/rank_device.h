// What the ranks of a run compute on: decided by all of them together, as a run on both kinds of
// device would be no run.
#pragma once

#include <functional>
#include <string>

#include "ops/cuda/gpus.h"
#include "parallel/comm.h"
#include "parallel/nccl_world.h"
#include "trainer/config/config.h"

namespace qstep::trainer {

struct RankDevice {
  Device device = Device::kCpu;
  // Why it is the CPU although a rank has a GPU; the same on all ranks. Empty: nothing to say.
  std::string note;
};

// Where a test puts a machine of its own.
struct DeviceSeams {
  std::function<int(std::string& why)> count_gpus = ops::count_gpus;
  std::function<std::string(int index)> take_gpu = ops::take_gpu;
  std::function<std::string()> nccl = parallel::nccl_name;
};

// A collective of `hosts`. Several ranks get kCuda where each of them has a GPU of its own that it
// can compute on, and NCCL to reach the others: the one of its number among the ranks of its node,
// or the only one that the launcher lets it see. That GPU is the current one from here on. kCpu
// otherwise, and where it was wanted; of one rank what was wanted is left to make_backend. Throws
// the same Error (gpu) on all ranks where kCuda was wanted and cannot be had.
RankDevice choose_device(Device wanted, parallel::Comm& hosts, const DeviceSeams& seams = {});

}  // namespace qstep::trainer
