#include <cuda_runtime.h>

#include "ops/cuda_probe.h"

namespace qstep::ops::cuda {

namespace {
__global__ void probe() {}

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
    if (driver == 0) return "there is no NVIDIA driver";
    return "the NVIDIA driver is for CUDA " + std::to_string(driver / 1000) + "." +
           std::to_string(driver % 1000 / 10) + ", older than the CUDA " +
           std::to_string(CUDART_VERSION / 1000) + " that qstep was built with";
  }
  if (counted == cudaErrorNoDevice || (counted == cudaSuccess && n_devices == 0)) {
    return "the NVIDIA driver lists no GPU (is CUDA_VISIBLE_DEVICES empty?)";
  }
  return counted == cudaSuccess ? "" : cudaGetErrorString(counted);
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
    return cudaGetErrorString(code);
  }
  int device = 0;
  cudaDeviceProp properties{};
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
    return "this qstep holds no code for the GPU";
  }
  return std::string("this qstep holds no code for the ") + properties.name +
         " (compute capability " + std::to_string(properties.major) + "." +
         std::to_string(properties.minor) + "), only for " + compiled_for() +
         "; add its architecture to CMAKE_CUDA_ARCHITECTURES and build again";
}

}  // namespace qstep::ops::cuda
