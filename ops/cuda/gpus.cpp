#include "ops/cuda/gpus.h"

#include <cuda_runtime_api.h>

#include <array>

#include "ops/cuda/cuda_context.h"
#include "ops/cuda/cuda_probe.h"

namespace qstep::ops {

int count_gpus(std::string& why) { return cuda::count_devices(why); }

std::string take_gpu(int index) {
  cuda_check(cudaSetDevice(index), "cudaSetDevice");
  if (const std::string why = cuda::why_no_device(); !why.empty()) {
    throw Error(ExitCode::kGpu, why);
  }
  std::array<char, 32> place{};
  cuda_check(cudaDeviceGetPCIBusId(place.data(), static_cast<int>(place.size()), index),
             "cudaDeviceGetPCIBusId");
  return place.data();
}

GpuFacts current_gpu() {
  int device = 0, major = 0, minor = 0;
  size_t free = 0, total = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess ||
      cudaMemGetInfo(&free, &total) != cudaSuccess) {
    (void)cudaGetLastError();  // not sticky
    return {};
  }
  return {.capability = 10 * major + minor,
          .memory_bytes = static_cast<int64_t>(total),
          .free_bytes = static_cast<int64_t>(free)};
}

}  // namespace qstep::ops
