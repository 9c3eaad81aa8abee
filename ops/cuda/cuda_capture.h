// What is kept of calls while a stream captures them as a CUDA graph: kernels whose arguments
// depend on the moment of a run (ops/recorder.h).
#pragma once

#include <cuda_runtime_api.h>

#include <concepts>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "ops/recorder.h"

namespace qstep::ops {

// A function object of a kernel that knows what it is at another moment.
template <class Kernel>
concept DependsOnMoment = requires(Kernel kernel, const Moment& moment) {
  { kernel.depends_on_moment() } -> std::same_as<bool>;
  kernel.move_to(moment);
};

// How a kernel is launched.
struct KernelLaunch {
  const void* function = nullptr;  // of the __global__
  unsigned blocks = 0, threads = 0;
  size_t shared_bytes = 0;
};

class CudaCapture {
 public:
  explicit CudaCapture(cudaStream_t stream) : stream_(stream) {}

  // The kernel captured last has these arguments: `kernel` and the others behind it.
  template <class Kernel, class... Others>
  void launched([[maybe_unused]] const KernelLaunch& launch, [[maybe_unused]] const Kernel& kernel,
                [[maybe_unused]] Others... others) {
    if constexpr (DependsOnMoment<Kernel>) {
      if (!kernel.depends_on_moment()) return;
      changes_.push_back([=, node = last_node()](cudaGraphExec_t graph, const Moment& moment) {
        Kernel moved = kernel;
        moved.move_to(moment);
        void* arguments[] = {&moved, const_cast<void*>(static_cast<const void*>(&others))...};
        set_arguments(graph, node, launch, arguments);
      });
    }
  }

  // Sets the arguments of a graph's kernels for a run; the graph was made of what was captured.
  using Change = std::function<void(cudaGraphExec_t, const Moment&)>;
  std::vector<Change> take_changes() { return std::move(changes_); }

 private:
  cudaGraphNode_t last_node() const;
  static void set_arguments(cudaGraphExec_t graph, cudaGraphNode_t node, const KernelLaunch& launch,
                            void** arguments);

  cudaStream_t stream_;
  std::vector<Change> changes_;
};

}  // namespace qstep::ops
