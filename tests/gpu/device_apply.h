// A function object applied to an array, on the device and on the host.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace qstep::precision {

template <class F>
__global__ void apply(const typename F::In* in, typename F::Out* out, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) out[i] = F()(in[i]);
}

inline void check_cuda(cudaError_t status) {
  ASSERT_EQ(status, cudaSuccess) << cudaGetErrorString(status);
}

// Device memory of n elements.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n) { check_cuda(cudaMalloc(&data_, n * sizeof(T))); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

template <class F>
std::vector<typename F::Out> apply_on_device(const std::vector<typename F::In>& in) {
  using In = typename F::In;
  using Out = typename F::Out;
  std::vector<Out> out(in.size());
  const DeviceArray<In> device_in(in.size());
  const DeviceArray<Out> device_out(in.size());
  check_cuda(
      cudaMemcpy(device_in.data(), in.data(), in.size() * sizeof(In), cudaMemcpyHostToDevice));
  constexpr unsigned kThreads = 256;
  const auto n_blocks = static_cast<unsigned>((in.size() + kThreads - 1) / kThreads);
  apply<F><<<n_blocks, kThreads>>>(device_in.data(), device_out.data(),
                                   static_cast<int64_t>(in.size()));
  check_cuda(cudaGetLastError());
  check_cuda(
      cudaMemcpy(out.data(), device_out.data(), out.size() * sizeof(Out), cudaMemcpyDeviceToHost));
  return out;
}

// Why this machine cannot run the kernels of this binary; empty when it can.
template <class F>
std::string why_no_device() {
  int n_devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&n_devices);
  if (status != cudaSuccess) return std::string("no CUDA device: ") + cudaGetErrorString(status);
  if (n_devices == 0) return "no CUDA device: the driver lists none";
  cudaFuncAttributes attributes;
  const cudaError_t code = cudaFuncGetAttributes(&attributes, apply<F>);
  if (code == cudaSuccess) return "";
  return std::string("no CUDA device that this binary has code for: ") + cudaGetErrorString(code);
}

}  // namespace qstep::precision
