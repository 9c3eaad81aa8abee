// Stands where the CUDA backend would: says why there is none.
#include "ops/ops.h"

namespace qstep::ops {

std::unique_ptr<Ops> make_cuda_ops(std::string& why) {
  why = "this qstep has no CUDA operations: it was built without the CUDA backend";
  return nullptr;
}

}  // namespace qstep::ops
