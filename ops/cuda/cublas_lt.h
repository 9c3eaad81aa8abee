// The functions of cuBLASLt that the CUDA backend calls, from the library as it is found at run
// time.
#pragma once

#include <cublasLt.h>

#include <string_view>

#include "ops/cuda/shared_library.h"

namespace qstep::ops {

#define QSTEP_CUBLASLT_FUNCTIONS(row)                        \
  row(version, cublasLtGetVersion);                          \
  row(status_string, cublasLtGetStatusString);               \
  row(create, cublasLtCreate);                               \
  row(destroy, cublasLtDestroy);                             \
  row(desc_create, cublasLtMatmulDescCreate);                \
  row(desc_destroy, cublasLtMatmulDescDestroy);              \
  row(desc_set, cublasLtMatmulDescSetAttribute);             \
  row(layout_create, cublasLtMatrixLayoutCreate);            \
  row(layout_destroy, cublasLtMatrixLayoutDestroy);          \
  row(preference_create, cublasLtMatmulPreferenceCreate);    \
  row(preference_destroy, cublasLtMatmulPreferenceDestroy);  \
  row(preference_set, cublasLtMatmulPreferenceSetAttribute); \
  row(heuristic, cublasLtMatmulAlgoGetHeuristic);            \
  row(matmul, cublasLtMatmul);

struct CublasLt {
  QSTEP_CUBLASLT_FUNCTIONS(QSTEP_LIBRARY_MEMBER)

  // Throws an Error (gpu) that names the call, unless status is success.
  void check(cublasStatus_t status, std::string_view call) const;
};

// Opened at the first call; an Error (gpu) where it is missing or too old.
const CublasLt& cublas_lt();

}  // namespace qstep::ops
