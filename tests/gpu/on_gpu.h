// An operation of the CUDA backend against the same on the host: the same tensors, the same bits
// afterwards, in the outputs and everywhere else.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cuda/cuda_context.h"
#include "tests/support/compare.h"

namespace qstep::test {

// Tests of operations on a GPU; skipped where there is none.
class OnGpu : public testing::Test {
 protected:
  void SetUp() override {
    int n_devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&n_devices);
    if (status != cudaSuccess || n_devices == 0) {
      GTEST_SKIP() << "needs an NVIDIA GPU and its driver: "
                   << (status == cudaSuccess ? "there is no device" : cudaGetErrorString(status));
    }
  }
};

// cudaMemcpy from pageable memory and cudaMemset may return before the bytes are there, and the
// streams of the backend do not wait for the default one ("API synchronization behavior").
inline void wait_for_default_stream() {
  ops::cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

// A copy of a tensor in device memory, with sentinels around it and between its rows.
class DeviceCopy {
 public:
  explicit DeviceCopy(const Tensor& x)
      : host_(x), row_bytes_(x.cols * ops::size_bytes(x.dtype)), ld_(x.ld * size_bytes(x.dtype)) {
    memory_.assign(static_cast<size_t>(2 * kGuard + x.rows * ld_), kSentinel);
    for (int64_t r = 0; r < x.rows; ++r) {
      std::memcpy(row(r), static_cast<const std::byte*>(x.data) + r * ld_,
                  static_cast<size_t>(row_bytes_));
    }
    device_ = ops::allocate_device(static_cast<int64_t>(memory_.size()));
    ops::cuda_check(
        cudaMemcpy(device_.data(), memory_.data(), memory_.size(), cudaMemcpyHostToDevice),
        "cudaMemcpy");
    wait_for_default_stream();
  }

  Tensor tensor() const {
    Tensor t = host_;
    t.data = static_cast<std::byte*>(device_.data()) + kGuard;
    return t;
  }

  // Writes the rows back to the host's tensor. False where a sentinel has changed.
  bool download() {
    ops::cuda_check(
        cudaMemcpy(memory_.data(), device_.data(), memory_.size(), cudaMemcpyDeviceToHost),
        "cudaMemcpy");
    for (int64_t r = 0; r < host_.rows; ++r) {
      std::memcpy(static_cast<std::byte*>(host_.data) + r * ld_, row(r),
                  static_cast<size_t>(row_bytes_));
      std::memset(row(r), 0xFF, static_cast<size_t>(row_bytes_));
    }
    for (const std::byte b : memory_) {
      if (b != kSentinel) return false;
    }
    return true;
  }

 private:
  static constexpr std::byte kSentinel{0xFF};
  static constexpr int64_t kGuard = 256;

  std::byte* row(int64_t r) { return memory_.data() + kGuard + r * ld_; }

  Tensor host_;
  int64_t row_bytes_, ld_;
  std::vector<std::byte> memory_;
  ops::Buffer device_;
};

// For compute-sanitizer, under which kernels take many times as long (scripts/gpu_check.sh).
inline bool small_sizes_only() { return std::getenv("QSTEP_SMALL_SIZES") != nullptr; }

// What a kernel does not write into scratch memory itself is NaNs to it.
inline void poison_scratch(ops::CudaContext& context) {
  constexpr int64_t kBytes = 4 << 20;
  ops::cuda_check(
      cudaMemsetAsync(context.scratch<std::byte>(kBytes), 0xFF, kBytes, context.stream()),
      "cudaMemset");
}

using Tensors = std::vector<Tensor>;
using OnHostFunction = std::function<void(const Tensors&)>;
using OnGpuFunction = std::function<void(const Tensors&, ops::CudaContext&)>;

// Tensors made by `make`, whose outputs start as NaNs: after on_gpu, twice, they have the bits that
// they have after on_host; or, where bound(tensor) is positive, its elements are within that of
// them, relative and absolute, and the two runs have the same bits.
inline void expect_same_on_gpu(const std::function<std::vector<Guarded>()>& make,
                               const OnHostFunction& on_host, const OnGpuFunction& on_gpu,
                               std::string_view what,
                               const std::function<double(size_t)>& bound = {}) {
  const auto views = [](const std::vector<Guarded>& all) {
    Tensors t;
    for (const Guarded& g : all) t.push_back(g.tensor());
    return t;
  };
  const std::vector<Guarded> expected = make();
  constexpr int64_t kSmall = 20'000;  // elements
  int64_t largest = 0;
  for (const Guarded& g : expected) largest = std::max(largest, g.tensor().size());
  if (small_sizes_only() && largest > kSmall) return;
  on_host(views(expected));
  ops::CudaContext context;
  std::vector<std::vector<Guarded>> runs;
  for (int run = 0; run < 2; ++run) {
    runs.push_back(make());
    std::vector<DeviceCopy> copies;
    for (const Tensor& t : views(runs.back())) copies.emplace_back(t);
    Tensors on_device;
    for (const DeviceCopy& c : copies) on_device.push_back(c.tensor());
    poison_scratch(context);
    on_gpu(on_device, context);
    ops::cuda_check(cudaStreamSynchronize(context.stream()), what);
    for (size_t i = 0; i < copies.size(); ++i) {
      EXPECT_TRUE(copies[i].download()) << what << ": tensor " << i << " is written around";
    }
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    const std::string name = fmt::format("{}: tensor {}", what, i);
    const double error = bound ? bound(i) : 0.0;
    if (error > 0) {
      expect_within(expected[i].values(), runs[0][i].values(),
                    {.relative = error, .absolute = error}, name);
    } else {
      expect_same_bits(expected[i], runs[0][i], name);
    }
    expect_same_bits(runs[0][i], runs[1][i], name + ", second run");
  }
}

}  // namespace qstep::test
