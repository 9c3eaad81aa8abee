#include "ops/cuda/cublas_lt.h"

#include "ops/error.h"

namespace qstep::ops {

void CublasLt::check(cublasStatus_t status, std::string_view call) const {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const auto code = status == CUBLAS_STATUS_ALLOC_FAILED ? ExitCode::kOutOfMemory : ExitCode::kGpu;
  throw Error(code, fmt::format("cuBLASLt: {}: {}", call, status_string(status)));
}

const CublasLt& cublas_lt() {
  static const CublasLt functions = [] {
    const SharedLibrary from({"libcublasLt.so.13", "libcublasLt.so.12"},
                             "it comes with the CUDA toolkit");
    CublasLt found;
    QSTEP_CUBLASLT_FUNCTIONS(QSTEP_LIBRARY_FIND)
    return found;
  }();
  return functions;
}

}  // namespace qstep::ops
