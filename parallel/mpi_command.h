// One collective as it is handed to the communication thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "parallel/comm.h"
#include "parallel/mpi_messages.h"

namespace qstep::parallel {

// The values tell messages of one kind from those of another (message_tag).
enum class Operation : uint8_t {
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kAllToAll,
  kSend,
  kReceive,
  kBarrier,
  kSplit,
};

constexpr std::string_view name(Operation operation) {
  switch (operation) {
    case Operation::kAllReduce:
      return "all_reduce";
    case Operation::kReduceScatter:
      return "reduce_scatter";
    case Operation::kAllGather:
      return "all_gather";
    case Operation::kBroadcast:
      return "broadcast";
    case Operation::kAllToAll:
      return "all_to_all";
    case Operation::kSend:
      return "send";
    case Operation::kReceive:
      return "receive";
    case Operation::kBarrier:
      return "barrier";
    case Operation::kSplit:
      return "split";
  }
  return "";
}

// Between two ranks, while all others know nothing of it.
constexpr bool is_point_to_point(Operation operation) {
  return operation == Operation::kSend || operation == Operation::kReceive;
}

struct MpiCommand {
  const MpiGroup* group = nullptr;
  Operation operation = Operation::kBarrier;
  ops::Tensor x;
  ops::Tensor in;  // all_to_all: what x is made of
  Reduce reduce = Reduce::kSum;
  int peer = -1;                // send, receive: the other; broadcast: the root
  std::vector<int64_t> bounds;  // reduce_scatter, all_gather, split
  uint64_t sequence = 0;        // CollectiveRecord
};

}  // namespace qstep::parallel
