// Stands where the NCCL world would: says why there is none.
#include "parallel/nccl_world.h"

namespace qstep::parallel {

namespace {

[[noreturn]] void fail() {
  throw ops::Error(ops::ExitCode::kGpu,
                   "this qstep was built without NCCL, so its ranks cannot work together on GPUs: "
                   "install the CUDA toolkit and NCCL's header (libnccl-dev), configure with "
                   "-DQSTEP_CUDA=ON and build again; or train on CPUs");
}

}  // namespace

std::unique_ptr<Comm> make_nccl(Comm&, void*, CollectiveObserver*) { fail(); }
std::string nccl_name() { fail(); }

}  // namespace qstep::parallel
