// The stream of a process on which the collectives of all its groups run, and what is known of
// those that were launched: tickets, events, times. Used by one thread at a time, which goes on
// while they run: they are looked at whenever it comes by here.
#pragma once

#include <cuda_runtime.h>

#include <deque>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "parallel/collective_observer.h"
#include "parallel/comm.h"
#include "parallel/nccl.h"

namespace qstep::parallel {

// Throws an Error (GPU) with CUDA's own text.
void check_cuda(cudaError_t code, std::string_view what);

class NcclQueue {
 public:
  // On the current device. `observer` may be null.
  NcclQueue(cudaStream_t compute, CollectiveObserver* observer);
  // Behind the communicators.
  ~NcclQueue();
  NcclQueue(const NcclQueue&) = delete;
  NcclQueue& operator=(const NcclQueue&) = delete;

  cudaStream_t stream() const { return stream_; }
  // Device memory until the next request: grows to the largest and stays.
  void* staging(int64_t bytes);

  // A communicator that is to be watched, and ended with the others when one of them fails.
  void add(ncclComm_t comm) { comms_.push_back(comm); }
  // Ends it: in order where that can be, as nothing failed and `in_order` says so.
  void remove(ncclComm_t comm, bool in_order);

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
  // The compute stream goes on behind the collective; throws what the observer or NCCL says by now.
  void wait(Comm::Ticket ticket);
  // Returns when the compute stream is done with all it was given; throws as wait does.
  void synchronize();
  // Returns when all that was handed over is over; throws as wait does.
  void finish();

  void sent(int64_t bytes);
  void observe(CollectiveObserver* observer) { observer_ = observer; }
  CommTimes times() const { return times_; }

 private:
  // A moment that both clocks know: when the device was at the event, of the host's steady clock.
  struct Moment {
    cudaEvent_t event = nullptr;
    int64_t host_ns = 0;
    ~Moment();
  };
  struct Running {
    CollectiveRecord record;
    Comm::Ticket ticket = 0;
    cudaEvent_t begin = nullptr, end = nullptr;
    std::shared_ptr<const Moment> earlier{};  // of which both events come
    bool entered = false;
  };

  void launch_exchanges();
  cudaEvent_t record_event();
  void launched(Running running);
  void look();
  void retire_front();
  void mark_moment(cudaStream_t stream);
  void check_alive();

  cudaStream_t compute_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t computed_ = nullptr;
  cudaEvent_t begin_ = nullptr;  // between begin() and end()
  std::vector<cudaEvent_t> spare_;
  std::vector<Exchange> exchanges_;  // not begun
  std::deque<Running> running_;      // in the order of their tickets
  std::shared_ptr<const Moment> moment_;
  std::vector<ncclComm_t> comms_;
  void* staging_ = nullptr;
  int64_t staging_bytes_ = 0;
  Comm::Ticket last_ticket_ = 0;
  CollectiveObserver* observer_;
  std::optional<Failure> failure_;
  CommTimes times_;
};

}  // namespace qstep::parallel
