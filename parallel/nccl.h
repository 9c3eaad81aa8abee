// The functions of NCCL that the world of GPUs calls, from the library as it is found at run time.
#pragma once

#include <nccl.h>

#include <string>
#include <string_view>

#include "ops/cuda/shared_library.h"

namespace qstep::parallel {

#define QSTEP_NCCL_FUNCTIONS(row)               \
  row(get_version, ncclGetVersion);             \
  row(error_string, ncclGetErrorString);        \
  row(last_error, ncclGetLastError);            \
  row(get_unique_id, ncclGetUniqueId);          \
  row(comm_init, ncclCommInitRankConfig);       \
  row(comm_split, ncclCommSplit);               \
  row(comm_finalize, ncclCommFinalize);         \
  row(comm_destroy, ncclCommDestroy);           \
  row(comm_abort, ncclCommAbort);               \
  row(comm_async_error, ncclCommGetAsyncError); \
  row(comm_rank, ncclCommUserRank);             \
  row(comm_size, ncclCommCount);                \
  row(group_start, ncclGroupStart);             \
  row(group_end, ncclGroupEnd);                 \
  row(send, ncclSend);                          \
  row(receive, ncclRecv);                       \
  row(broadcast, ncclBroadcast);

struct Nccl {
  QSTEP_NCCL_FUNCTIONS(QSTEP_LIBRARY_MEMBER)

  // "NCCL 2.28.9"
  std::string name() const;
  // Throws an Error (gpu) that names the call, unless code is ncclSuccess.
  void check(ncclResult_t code, std::string_view call) const;
};

// Opened at the first call; an Error (gpu) where it is missing or too old.
const Nccl& nccl();

}  // namespace qstep::parallel
