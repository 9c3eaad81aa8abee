#include "parallel/nccl_queue.h"

#include <sched.h>

#include <chrono>
#include <utility>

namespace qstep::parallel {

void check_cuda(cudaError_t code, std::string_view what) {
  if (code == cudaSuccess) return;
  throw ops::Error(ops::ExitCode::kGpu,
                   fmt::format("{} failed on the GPU: {}", what, cudaGetErrorString(code)));
}

void check_nccl(ncclResult_t code, std::string_view what) {
  if (code == ncclSuccess) return;
  throw ops::Error(ops::ExitCode::kGpu,
                   fmt::format("{} failed between the GPUs: {} ({}); NCCL_DEBUG=INFO says more",
                               what, ncclGetErrorString(code), ncclGetLastError(nullptr)));
}

NcclQueue::NcclQueue(cudaStream_t compute) : compute_(compute) {
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  check_cuda(cudaEventCreateWithFlags(&computed_, cudaEventDisableTiming), "creating an event");
}

NcclQueue::~NcclQueue() {
  for (const Running& running : running_) {
    cudaEventDestroy(running.begin);
    cudaEventDestroy(running.end);
  }
  for (cudaEvent_t event : spare_) cudaEventDestroy(event);
  cudaEventDestroy(computed_);
  cudaStreamDestroy(stream_);
  // Freeing waits for the device, which may stand still after a failure; the process ends soon.
  if (!failure_) cudaFree(staging_);
}

void* NcclQueue::staging(int64_t bytes) {
  if (bytes > staging_bytes_) {
    check_cuda(cudaFree(std::exchange(staging_, nullptr)), "freeing memory");
    check_cuda(cudaMalloc(&staging_, static_cast<size_t>(bytes)), "memory for collectives");
    staging_bytes_ = bytes;
  }
  return staging_;
}

// An event that is over when what was launched on the stream so far is.
cudaEvent_t NcclQueue::record_event() {
  cudaEvent_t event = nullptr;
  if (spare_.empty()) {
    check_cuda(cudaEventCreate(&event), "creating an event");
  } else {
    event = spare_.back();
    spare_.pop_back();
  }
  check_cuda(cudaEventRecord(event, stream_), "recording an event");
  return event;
}

Comm::Ticket NcclQueue::exchange(Exchange exchange) {
  exchange.ticket = ++last_ticket_;
  exchanges_.push_back(exchange);
  return last_ticket_;
}

void NcclQueue::launch_exchanges() {
  if (exchanges_.empty()) return;
  check_cuda(cudaEventRecord(computed_, compute_), "recording an event");
  check_cuda(cudaStreamWaitEvent(stream_, computed_, 0), "waiting for an event");
  const std::vector<Exchange> exchanges = std::exchange(exchanges_, {});
  std::vector<cudaEvent_t> begins;
  for (size_t i = 0; i < exchanges.size(); ++i) begins.push_back(record_event());
  check_nccl(ncclGroupStart(), "ncclGroupStart");
  for (const Exchange& e : exchanges) {
    const auto bytes = static_cast<size_t>(e.record.bytes);
    if (bytes == 0) continue;
    const ncclResult_t code =
        e.sends ? ncclSend(e.data, bytes, ncclUint8, e.record.peer, e.comm, stream_)
                : ncclRecv(e.data, bytes, ncclUint8, e.record.peer, e.comm, stream_);
    if (code != ncclInProgress) check_nccl(code, "a send or receive");
    if (e.sends) sent(e.record.bytes);
  }
  const ncclResult_t code = ncclGroupEnd();
  for (size_t i = 0; i < exchanges.size(); ++i) {
    settle(exchanges[i].comm, code, "sends and receives");
    launched({.record = exchanges[i].record,
              .ticket = exchanges[i].ticket,
              .begin = begins[i],
              .end = record_event()});
  }
}

void NcclQueue::begin() {
  launch_exchanges();
  check_cuda(cudaEventRecord(computed_, compute_), "recording an event");
  check_cuda(cudaStreamWaitEvent(stream_, computed_, 0), "waiting for an event");
  begin_ = record_event();
}

Comm::Ticket NcclQueue::end(const CollectiveRecord& record) {
  launched({.record = record,
            .ticket = ++last_ticket_,
            .begin = std::exchange(begin_, nullptr),
            .end = record_event()});
  return last_ticket_;
}

void NcclQueue::launched(const Running& running) {
  if (running_.empty() && observer_ != nullptr) observer_->entered(running.record);
  running_.push_back(running);
}

void NcclQueue::settle(ncclComm_t comm, ncclResult_t code, std::string_view what) {
  if (code != ncclInProgress) return check_nccl(code, what);
  for (ncclResult_t state = ncclInProgress; state == ncclInProgress;) {
    check_alive(nullptr);
    sched_yield();
    check_nccl(ncclCommGetAsyncError(comm, &state), what);
    if (state != ncclInProgress) check_nccl(state, what);
  }
}

void NcclQueue::wait(Comm::Ticket ticket, ncclComm_t comm) {
  ops::check(ticket <= last_ticket_, "wait: no such ticket");
  const auto start = std::chrono::steady_clock::now();
  launch_exchanges();
  check_alive(comm);
  while (!running_.empty() && running_.front().ticket <= ticket) {
    const cudaError_t state = cudaEventQuery(running_.front().end);
    if (state == cudaSuccess) {
      retire_front();
      continue;
    }
    if (state != cudaErrorNotReady) check_cuda(state, "a collective");
    check_alive(comm);
    sched_yield();
  }
  times_.exposed_ms +=
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

bool NcclQueue::drain(ncclComm_t comm) {
  try {
    wait(last_ticket_, comm);
    return true;
  } catch (const ops::Error&) {
    return false;
  }
}

void NcclQueue::retire_front() {
  const Running done = running_.front();
  running_.pop_front();
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, done.begin, done.end), "timing a collective");
  times_.busy_ms += static_cast<double>(ms);
  spare_.push_back(done.begin);
  spare_.push_back(done.end);
  if (observer_ == nullptr) return;
  observer_->left(done.record);
  if (!running_.empty()) observer_->entered(running_.front().record);
}

void NcclQueue::check_alive(ncclComm_t comm) {
  if (!failure_ && observer_ != nullptr) failure_ = observer_->failure();
  if (!failure_ && comm != nullptr) {
    ncclResult_t state = ncclSuccess;
    ncclCommGetAsyncError(comm, &state);
    if (state != ncclSuccess && state != ncclInProgress) {
      failure_ =
          Failure{ops::ExitCode::kPeerDied,
                  fmt::format("NCCL cannot reach another rank: {}. A rank or its machine may "
                              "have died: see their logs, then start the same command again",
                              ncclGetErrorString(state))};
    }
  }
  if (failure_) throw ops::Error(failure_->code, failure_->text);
}

void NcclQueue::sent(int64_t bytes) {
  times_.bytes_sent += bytes;
  ++times_.messages_sent;
}

}  // namespace qstep::parallel
