#include "trainer/backend.h"

#include <string>

namespace qstep::trainer {

std::unique_ptr<ops::Ops> make_backend(Device device, int n_ranks) {
  if (device == Device::kCpu) return ops::make_cpu_ops();
  std::string why;
  if (n_ranks > 1) {
    why = fmt::format("{} ranks exchange memory of the host, not of GPUs", n_ranks);
  } else if (std::unique_ptr<ops::Ops> cuda = ops::make_cuda_ops(why)) {
    return cuda;
  }
  if (device == Device::kCuda) {
    throw ops::Error(
        ops::ExitCode::kGpu,
        fmt::format("run.device is cuda, but {}; set run.device = \"cpu\" or \"auto\", and see "
                    "`qstep doctor`",
                    why));
  }
  return ops::make_cpu_ops();
}

}  // namespace qstep::trainer
