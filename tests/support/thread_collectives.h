// What collectives do to the tensors of all ranks, which one thread can see.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm.h"

namespace qstep::test {

enum class Collective : uint8_t {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kAllToAll,
  kSend,
  kReceive,
  kBarrier,
};

// One rank's call.
struct Operation {
  Collective kind = Collective::kBarrier;
  std::vector<int> group;  // ranks of the world, in the order of the group's ranks
  ops::Tensor x;           // of all_to_all: the result
  ops::Tensor in;          // of all_to_all
  parallel::Reduce reduce = parallel::Reduce::kSum;
  std::vector<int64_t> bounds;
  int peer = -1;  // rank of the world: root, receiver of a send, sender of a receive
};

// "all_reduce of 12 fp32"
std::string describe(const Operation& operation);

// Carries out one collective; `calls` are those of rank 0, 1, ... of the group. Throws an internal
// Error when they do not fit together.
void run_collective(std::span<const Operation* const> calls);

// A send and its receive.
void run_message(const Operation& send, const Operation& receive);

}  // namespace qstep::test
