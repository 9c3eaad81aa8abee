// The stream of a process on which the collectives of all its groups run, and what is known of
// those that were launched: tickets, events, times. Used by one thread at a time.
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <deque>
#include <string_view>
#include <vector>

#include "parallel/collective_observer.h"
#include "parallel/comm.h"

namespace qstep::parallel {

// Throw an Error (GPU) with the library's own text.
void check_cuda(cudaError_t code, std::string_view what);
void check_nccl(ncclResult_t code, std::string_view what);

class NcclQueue {
 public:
  // On the current device.
  explicit NcclQueue(cudaStream_t compute);
  ~NcclQueue();
  NcclQueue(const NcclQueue&) = delete;
  NcclQueue& operator=(const NcclQueue&) = delete;

  cudaStream_t stream() const { return stream_; }
  // Device memory until the next request: grows to the largest and stays.
  void* staging(int64_t bytes);

  // A send or receive. Those that follow each other begin together, with the next begin() or
  // wait(): two ranks that send to each other would otherwise wait for ever.
  struct Exchange {
    CollectiveRecord record;
    ncclComm_t comm = nullptr;
    void* data = nullptr;
    bool sends = false;
    Comm::Ticket ticket = 0;
  };
  Comm::Ticket exchange(Exchange exchange);

  // Everything that is launched on stream() between the two is one collective.
  void begin();
  Comm::Ticket end(const CollectiveRecord& record);

  // Returns when NCCL has taken what was handed to `comm`: calls do not block by themselves.
  void settle(ncclComm_t comm, ncclResult_t code, std::string_view what);
  // Returns when the collective is over; throws what the observer or NCCL says.
  void wait(Comm::Ticket ticket, ncclComm_t comm);
  // The same for all that was handed over; false where that will never be.
  bool drain(ncclComm_t comm);

  void sent(int64_t bytes);
  void observe(CollectiveObserver* observer) { observer_ = observer; }
  CommTimes times() const { return times_; }

 private:
  struct Running {
    CollectiveRecord record;
    Comm::Ticket ticket = 0;
    cudaEvent_t begin = nullptr, end = nullptr;
  };

  void launch_exchanges();
  cudaEvent_t record_event();
  void launched(const Running& running);
  void retire_front();
  void check_alive(ncclComm_t comm);

  cudaStream_t compute_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t computed_ = nullptr;
  cudaEvent_t begin_ = nullptr;  // between begin() and end()
  std::vector<cudaEvent_t> spare_;
  std::vector<Exchange> exchanges_;  // not begun
  std::deque<Running> running_;
  void* staging_ = nullptr;
  int64_t staging_bytes_ = 0;
  Comm::Ticket last_ticket_ = 0;
  CollectiveObserver* observer_ = nullptr;
  std::optional<Failure> failure_;
  CommTimes times_;
};

}  // namespace qstep::parallel
