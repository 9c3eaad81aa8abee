// The functions of cuBLASLt that the CUDA backend calls, from the library as it is found at run
// time.
#pragma once

#include <cublasLt.h>

#include <string_view>

namespace qstep::ops {

struct CublasLt {
  decltype(&::cublasLtGetVersion) version;
  decltype(&::cublasLtGetStatusString) status_string;
  decltype(&::cublasLtCreate) create;
  decltype(&::cublasLtDestroy) destroy;
  decltype(&::cublasLtMatmulDescCreate) desc_create;
  decltype(&::cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&::cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&::cublasLtMatrixLayoutCreate) layout_create;
  decltype(&::cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&::cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&::cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&::cublasLtMatmul) matmul;

  // Throws an Error (gpu) that names the call, unless status is success.
  void check(cublasStatus_t status, std::string_view call) const;
};

// Opened at the first call; an Error (gpu) where it is missing or too old.
const CublasLt& cublas_lt();

}  // namespace qstep::ops
