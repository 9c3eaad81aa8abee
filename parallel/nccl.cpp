#include "parallel/nccl.h"

#include <fmt/format.h>

#include "ops/error.h"

namespace qstep::parallel {

std::string Nccl::name() const {
  int version = 0;
  check(get_version(&version), "ncclGetVersion");
  return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

void Nccl::check(ncclResult_t code, std::string_view call) const {
  if (code == ncclSuccess) return;
  throw ops::Error(ops::ExitCode::kGpu,
                   fmt::format("{} failed between the GPUs: {} ({}); NCCL_DEBUG=INFO says more",
                               call, error_string(code), last_error(nullptr)));
}

const Nccl& nccl() {
  static const Nccl functions = [] {
    const ops::SharedLibrary from({"libnccl.so.2"},
                                  "it is NVIDIA's package libnccl2, or the wheel nvidia-nccl-cu13");
    Nccl found;
    QSTEP_NCCL_FUNCTIONS(QSTEP_LIBRARY_FIND)
    return found;
  }();
  return functions;
}

}  // namespace qstep::parallel
