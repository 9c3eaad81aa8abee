#include <cuda_runtime.h>

#include "ops/cuda/cuda_context.h"
#include "ops/cuda/cuda_probe.h"
#include "ops/cuda/cuda_reasons.h"
#include "precision/stochastic_rounding.h"

namespace qstep::ops::cuda {

namespace {
__global__ void probe() {}
__global__ void probe_rounder(int* answer) { *answer = precision::kHasHardwareRounder<float>; }

std::string failed(cudaError_t status, const char* call) {
  return call_error(status, cudaGetErrorName(status), cudaGetErrorString(status), call).what();
}

// "9.0, 10.0, 12.0": what nvcc was told to compile for.
std::string compiled_for() {
  std::string list;
  for (const int architecture : {__CUDA_ARCH_LIST__}) {
    list += (list.empty() ? "" : ", ") + std::to_string(architecture / 100) + "." +
            std::to_string(architecture / 10 % 10);
  }
  return list;
}

// Empty where there are devices.
std::string why_none(cudaError_t counted, int n_devices) {
  if (counted == cudaErrorInsufficientDriver) {
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    return old_driver_text(driver, CUDART_VERSION);
  }
  if (counted == cudaErrorNoDevice || (counted == cudaSuccess && n_devices == 0)) {
    return no_gpu_text();
  }
  return counted == cudaSuccess ? "" : failed(counted, "cudaGetDeviceCount");
}

}  // namespace

int count_devices(std::string& why) {
  int n_devices = 0;
  const cudaError_t counted = cudaGetDeviceCount(&n_devices);
  why = why_none(counted, n_devices);
  return why.empty() ? n_devices : 0;
}

std::string why_no_device() {
  std::string why;
  if (count_devices(why) == 0) return why;
  cudaFuncAttributes attributes;
  const cudaError_t code = cudaFuncGetAttributes(&attributes, probe);
  if (code == cudaSuccess) return "";
  (void)cudaGetLastError();  // not sticky
  if (code != cudaErrorNoKernelImageForDevice && code != cudaErrorInvalidDeviceFunction) {
    return failed(code, "cudaFuncGetAttributes");
  }
  int device = 0;
  cudaDeviceProp properties{};
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
    return "this qstep holds no code for the GPU";
  }
  return no_code_text(properties.name, 10 * properties.major + properties.minor, compiled_for());
}

bool has_hardware_rounder() {
  const Buffer memory = allocate_device(sizeof(int));
  int answer = 0;
  probe_rounder<<<1, 1>>>(static_cast<int*>(memory.data()));
  cuda_check(cudaGetLastError(), "probe_rounder");
  cuda_check(cudaMemcpy(&answer, memory.data(), sizeof answer, cudaMemcpyDeviceToHost),
             "probe_rounder");
  return answer != 0;
}

}  // namespace qstep::ops::cuda
