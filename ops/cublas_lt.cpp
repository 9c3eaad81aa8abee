#include "ops/cublas_lt.h"

#include "ops/error.h"
#include "ops/shared_library.h"

namespace qstep::ops {

void CublasLt::check(cublasStatus_t status, std::string_view call) const {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const auto code = status == CUBLAS_STATUS_ALLOC_FAILED ? ExitCode::kOutOfMemory : ExitCode::kGpu;
  throw Error(code, fmt::format("cuBLASLt: {}: {}", call, status_string(status)));
}

const CublasLt& cublas_lt() {
  static const CublasLt functions = [] {
    const SharedLibrary library({"libcublasLt.so.13", "libcublasLt.so.12"},
                                "it comes with the CUDA toolkit");
    CublasLt f{};
    library.find(f.version, "cublasLtGetVersion");
    library.find(f.status_string, "cublasLtGetStatusString");
    library.find(f.create, "cublasLtCreate");
    library.find(f.destroy, "cublasLtDestroy");
    library.find(f.desc_create, "cublasLtMatmulDescCreate");
    library.find(f.desc_destroy, "cublasLtMatmulDescDestroy");
    library.find(f.desc_set, "cublasLtMatmulDescSetAttribute");
    library.find(f.layout_create, "cublasLtMatrixLayoutCreate");
    library.find(f.layout_destroy, "cublasLtMatrixLayoutDestroy");
    library.find(f.preference_create, "cublasLtMatmulPreferenceCreate");
    library.find(f.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    library.find(f.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    library.find(f.heuristic, "cublasLtMatmulAlgoGetHeuristic");
    library.find(f.matmul, "cublasLtMatmul");
    return f;
  }();
  return functions;
}

}  // namespace qstep::ops
