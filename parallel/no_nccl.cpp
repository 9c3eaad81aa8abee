// Stands where the NCCL world would: says why there is none.
#include "parallel/nccl_world.h"

namespace qstep::parallel {

std::unique_ptr<Comm> make_nccl(Comm&, const Launch&, void*) {
  throw ops::Error(ops::ExitCode::kGpu,
                   "this qstep was built without NCCL, so its ranks cannot work together on GPUs: "
                   "install the CUDA toolkit and NCCL (libnccl-dev), configure with "
                   "-DQSTEP_CUDA=ON and build again; or train on CPUs");
}

}  // namespace qstep::parallel
