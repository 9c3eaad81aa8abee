#include "ops/cuda/cuda_copies.h"

#include <cstring>

#include "ops/cuda/cuda_context.h"

namespace qstep::ops {

namespace {

constexpr int64_t kHalfBytes = 8 << 20;     // a million tokens with their targets
constexpr int64_t kLandingBytes = 1 << 20;  // what a step brings back is a few KiB

Buffer allocate_pinned(int64_t bytes) {
  void* data = nullptr;
  cuda_check(cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocDefault),
             "cudaHostAlloc");
  return {data, bytes, [](void* p) { (void)cudaFreeHost(p); }};
}

}  // namespace

CudaEvent::CudaEvent() {
  cuda_check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
}
CudaEvent::~CudaEvent() { (void)cudaEventDestroy(event_); }
void CudaEvent::record(cudaStream_t stream) const {
  cuda_check(cudaEventRecord(event_, stream), "cudaEventRecord");
}
void CudaEvent::wait() const { cuda_check(cudaEventSynchronize(event_), "cudaEventSynchronize"); }

CudaCopies::CudaCopies(cudaStream_t stream)
    : stream_(stream),
      pinned_(allocate_pinned(2 * kHalfBytes)),
      landing_(allocate_pinned(kLandingBytes)),
      staging_(static_cast<char*>(pinned_.data()), kHalfBytes, StreamCopies{stream, &fetched_}) {}

void CudaCopies::StreamCopies::copy(void* to, const char* from, int64_t bytes) const {
  cuda_check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream),
             "upload");
}

void CudaCopies::upload(void* to, const void* host, int64_t bytes) {
  staging_.upload(to, host, bytes);
}

// What does not fit goes straight to the host's memory, which the driver waits for by itself.
void CudaCopies::download(std::span<const HostCopy> copies) {
  int64_t total = 0;
  for (const HostCopy& copy : copies) {
    check(copy.src.contiguous(), "download: source is not contiguous");
    total += copy.src.bytes();
  }
  const bool lands = total <= kLandingBytes;
  char* at = static_cast<char*>(landing_.data());
  for (const HostCopy& copy : copies) {
    cuda_check(
        cudaMemcpyAsync(lands ? at : copy.host, copy.src.data,
                        static_cast<size_t>(copy.src.bytes()), cudaMemcpyDeviceToHost, stream_),
        "download");
    at += lands ? copy.src.bytes() : 0;
  }
  cuda_check(cudaStreamSynchronize(stream_), "download");
  at = static_cast<char*>(landing_.data());
  for (const HostCopy& copy : copies) {
    if (!lands) break;
    std::memcpy(copy.host, at, static_cast<size_t>(copy.src.bytes()));
    at += copy.src.bytes();
  }
}

}  // namespace qstep::ops
