// From a graph of operations to a kernel of cuDNN, chosen once, and its calls.
#pragma once

#include <compare>
#include <map>
#include <optional>
#include <utility>

#include "ops/cuda/cudnn_graph.h"

namespace qstep::ops {

// What plans are made for: a GPU that is there, by its handle; or one that is described (a
// CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR), with plans that are not run.
struct CudnnTarget {
  cudnnHandle_t handle = nullptr;
  const CudnnDescriptor* device = nullptr;
};

// A kernel named by its engine's number and settings, where the library does not propose it.
struct CudnnEngine {
  int64_t engine = 0;
  std::vector<std::pair<cudnnBackendKnobType_t, int64_t>> knobs;
};

// Configurations of kernels for a finalized graph that the library says it can run on the target,
// best first, `preferred` before all; those alone that give the same bits on every run, as far as
// the library says.
std::vector<CudnnDescriptor> cudnn_configurations(const CudnnDescriptor& graph,
                                                  const CudnnTarget& target,
                                                  const std::optional<CudnnEngine>& preferred);

// Where the tensors of a graph are, by their names in it; numbers in host memory that outlives the
// plan.
struct CudnnArguments {
  std::vector<int64_t> names;
  std::vector<void*> memory;
  void* workspace = nullptr;
  auto operator<=>(const CudnnArguments&) const = default;
};

class CudnnPlan {
 public:
  // Of the first configuration that can be built; none, and `why`, where none can.
  static std::optional<CudnnPlan> make(const CudnnGraph& graph, const CudnnTarget& target,
                                       const std::optional<CudnnEngine>& preferred,
                                       std::string& why);

  int64_t workspace_bytes() const { return workspace_bytes_; }
  int64_t engine() const { return engine_; }  // the library's number of it

  // Nothing is created for memory that has been seen.
  void run(cudnnHandle_t handle, const CudnnArguments& arguments);

 private:
  CudnnPlan(CudnnDescriptor plan, int64_t engine);

  CudnnDescriptor plan_;
  int64_t workspace_bytes_ = 0, engine_ = 0;
  std::map<CudnnArguments, CudnnDescriptor> seen_;
};

}  // namespace qstep::ops
