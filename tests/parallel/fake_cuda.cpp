#include "tests/parallel/fake_cuda.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

// What CUDA leaves open.
struct CUevent_st {
  int n_recorded = 0, n_passed = 0;
};
struct CUstream_st {
  // Does its work and says so, or cannot go on yet.
  std::deque<std::function<bool()>> work;
};

namespace {

// As many looks as a host takes that passes by, and then one more.
constexpr int kLooksPerWork = 5;

int n_looks = 0;
CUstream_st compute;                          // the caller's, null
std::vector<CUstream_st*> streams{&compute};  // the first that can go on does

CUstream_st& stream_of(cudaStream_t stream) { return stream == nullptr ? compute : *stream; }

// One piece of work, if any stream has one that can begin.
bool work() {
  for (CUstream_st* const stream : streams) {
    if (stream->work.empty() || !stream->work.front()()) continue;
    stream->work.pop_front();
    return true;
  }
  return false;
}

}  // namespace

namespace qstep::parallel {

void put_on_stream(cudaStream_t stream, std::function<void()> f) {
  stream_of(stream).work.push_back([f = std::move(f)] {
    f();
    return true;
  });
}

}  // namespace qstep::parallel

extern "C" {

const char* cudaGetErrorString(cudaError_t) { return "an error of the fake GPU"; }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  streams.push_back(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::erase(streams, stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  stream_of(stream).work.push_back([event, n = event->n_recorded] { return event->n_passed >= n; });
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaEventCreate(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  stream_of(stream).work.push_back([event, n = ++event->n_recorded] {
    event->n_passed = n;
    return true;
  });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->n_passed < event->n_recorded && ++n_looks % kLooksPerWork == 0) work();
  return event->n_passed < event->n_recorded ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  *ms = 1.0f;
  return from->n_passed < from->n_recorded || to->n_passed < to->n_recorded ? cudaErrorNotReady
                                                                            : cudaSuccess;
}

cudaError_t cudaMalloc(void** data, size_t size) { return *data = std::malloc(size), cudaSuccess; }
// Waits for all that the device was given, as CUDA's does.
cudaError_t cudaFree(void* data) {
  while (work()) continue;
  return std::free(data), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* out, const void* in, size_t size, cudaMemcpyKind,
                            cudaStream_t stream) {
  qstep::parallel::put_on_stream(stream, [=] {
    if (size > 0) std::memcpy(out, in, size);
  });
  return cudaSuccess;
}

}  // extern "C"
