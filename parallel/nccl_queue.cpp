#include "parallel/nccl_queue.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace qstep::parallel {

namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double elapsed_ms(cudaEvent_t from, cudaEvent_t to) {
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, from, to), "timing a collective");
  return static_cast<double>(ms);
}

// Whether the device has been there.
bool passed(cudaEvent_t event) {
  const cudaError_t state = cudaEventQuery(event);
  if (state != cudaErrorNotReady) check_cuda(state, "a collective, or what was computed,");
  return state == cudaSuccess;
}

}  // namespace

void check_cuda(cudaError_t code, std::string_view what) {
  if (code == cudaSuccess) return;
  throw ops::Error(ops::ExitCode::kGpu,
                   fmt::format("{} failed on the GPU: {}", what, cudaGetErrorString(code)));
}

NcclQueue::Moment::~Moment() {
  if (event != nullptr) cudaEventDestroy(event);
}

NcclQueue::NcclQueue(cudaStream_t compute, CollectiveObserver* observer)
    : compute_(compute), observer_(observer) {
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  check_cuda(cudaEventCreateWithFlags(&computed_, cudaEventDisableTiming), "creating an event");
  mark_moment(stream_);
}

NcclQueue::~NcclQueue() {
  for (ncclComm_t comm : comms_) nccl().comm_abort(comm);  // those that never became a world
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

void NcclQueue::remove(ncclComm_t comm, bool in_order) {
  const auto it = std::find(comms_.begin(), comms_.end(), comm);
  if (it == comms_.end()) return;  // ended by a failure
  if (in_order) {
    try {
      finish();
    } catch (const ops::Error&) {  // whoever waited for it before knows
      in_order = false;
      if (failure_) return;  // which ended it
    }
  }
  comms_.erase(std::find(comms_.begin(), comms_.end(), comm));
  if (!in_order) {
    nccl().comm_abort(comm);
    return;
  }
  nccl().comm_finalize(comm);
  ncclResult_t state = ncclInProgress;
  while (nccl().comm_async_error(comm, &state) == ncclSuccess && state == ncclInProgress) {
    sched_yield();
  }
  nccl().comm_destroy(comm);
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
  check_alive();
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
  nccl().check(nccl().group_start(), "ncclGroupStart");
  for (const Exchange& e : exchanges) {
    const auto bytes = static_cast<size_t>(e.record.bytes);
    if (bytes == 0) continue;
    const ncclResult_t code =
        e.sends ? nccl().send(e.data, bytes, ncclUint8, e.record.peer, e.comm, stream_)
                : nccl().receive(e.data, bytes, ncclUint8, e.record.peer, e.comm, stream_);
    if (code != ncclInProgress) nccl().check(code, "a send or receive");
    if (e.sends) sent(e.record.bytes);
  }
  const ncclResult_t code = nccl().group_end();
  for (size_t i = 0; i < exchanges.size(); ++i) {
    settle(exchanges[i].comm, code, "sends and receives");
    launched({.record = exchanges[i].record,
              .ticket = exchanges[i].ticket,
              .begin = begins[i],
              .end = record_event()});
  }
}

void NcclQueue::begin() {
  check_alive();
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

void NcclQueue::launched(Running running) {
  running.earlier = moment_;
  running_.push_back(std::move(running));
  look();
}

// Tells what the device has begun and ended since the last look.
void NcclQueue::look() {
  while (!running_.empty()) {
    Running& front = running_.front();
    if (!front.entered) {
      if (!passed(front.begin)) return;
      front.entered = true;
      if (observer_ != nullptr) observer_->entered(front.record);
    }
    if (!passed(front.end)) return;
    retire_front();
  }
}

void NcclQueue::retire_front() {
  Running done = std::move(running_.front());
  running_.pop_front();
  const double begin_ms = elapsed_ms(done.earlier->event, done.begin);
  const double length_ms = elapsed_ms(done.begin, done.end);
  times_.busy_ms += length_ms;
  spare_.push_back(done.begin);
  spare_.push_back(done.end);
  if (observer_ == nullptr) return;
  done.record.begin_ns = done.earlier->host_ns + std::llround(begin_ms * 1e6);
  done.record.end_ns = done.record.begin_ns + std::llround(length_ms * 1e6);
  observer_->left(done.record);
}

void NcclQueue::settle(ncclComm_t comm, ncclResult_t code, std::string_view what) {
  if (code != ncclInProgress) return nccl().check(code, what);
  for (ncclResult_t state = ncclInProgress; state == ncclInProgress;) {
    check_alive();
    sched_yield();
    nccl().check(nccl().comm_async_error(comm, &state), what);
    if (state != ncclInProgress) nccl().check(state, what);
  }
}

void NcclQueue::wait(Comm::Ticket ticket) {
  ops::check(ticket <= last_ticket_, "wait: no such ticket");
  launch_exchanges();
  check_alive();
  look();
  // What is not there any more is over.
  const auto behind = std::find_if(running_.begin(), running_.end(),
                                   [&](const Running& running) { return running.ticket > ticket; });
  if (behind == running_.begin()) return;
  check_cuda(cudaStreamWaitEvent(compute_, std::prev(behind)->end, 0), "waiting for an event");
}

void NcclQueue::synchronize() {
  launch_exchanges();
  mark_moment(compute_);
}

void NcclQueue::finish() {
  launch_exchanges();
  for (look(); !running_.empty(); look()) {
    check_alive();
    sched_yield();
  }
}

// Waits until the device is behind what the stream was given so far.
void NcclQueue::mark_moment(cudaStream_t stream) {
  auto moment = std::make_shared<Moment>();
  check_cuda(cudaEventCreate(&moment->event), "creating an event");
  check_cuda(cudaEventRecord(moment->event, stream), "recording an event");
  while (!passed(moment->event)) {
    look();
    check_alive();
    sched_yield();
  }
  moment->host_ns = now_ns();
  moment_ = std::move(moment);
  look();
}

void NcclQueue::check_alive() {
  if (!failure_ && observer_ != nullptr) failure_ = observer_->failure();
  for (size_t i = 0; i < comms_.size() && !failure_; ++i) {
    ncclResult_t state = ncclSuccess;
    nccl().comm_async_error(comms_[i], &state);
    if (state != ncclSuccess && state != ncclInProgress) {
      failure_ =
          Failure{ops::ExitCode::kPeerDied,
                  fmt::format("NCCL cannot reach another rank: {}. A rank or its machine may "
                              "have died: see their logs, then start the same command again",
                              nccl().error_string(state))};
    }
  }
  if (!failure_) return;
  // Kernels that wait for a dead rank end with this; memory could not be freed beside them.
  for (ncclComm_t comm : std::exchange(comms_, {})) nccl().comm_abort(comm);
  throw ops::Error(failure_->code, failure_->text);
}

void NcclQueue::sent(int64_t bytes) {
  times_.bytes_sent += bytes;
  ++times_.messages_sent;
}

}  // namespace qstep::parallel
