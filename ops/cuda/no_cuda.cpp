// Stands where the CUDA backend would: says why there is none.
#include "ops/attention/attention_path.h"
#include "ops/cuda/gpus.h"
#include "ops/ops.h"

namespace qstep::ops {

namespace {
constexpr const char* kWhy =
    "this qstep has no CUDA operations: it was built without the CUDA backend";
}  // namespace

std::unique_ptr<Ops> make_cuda_ops(std::string& why) {
  why = kWhy;
  return nullptr;
}

int count_gpus(std::string& why) {
  why = kWhy;
  return 0;
}

std::string take_gpu(int /*index*/) { throw Error(ExitCode::kGpu, kWhy); }

GpuFacts current_gpu() { return {}; }

std::string attention_path_on_gpu(const AttentionShape& /*shape*/, Dtype /*dtype*/,
                                  Direction /*direction*/) {
  throw Error(ExitCode::kGpu, kWhy);
}

}  // namespace qstep::ops
