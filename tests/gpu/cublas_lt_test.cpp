// cuBLASLt as it is found at run time: every function that is called is there. Needs no GPU.
#include "ops/cuda/cublas_lt.h"

#include <gtest/gtest.h>

#include "ops/error.h"

namespace qstep::ops {
namespace {

TEST(CublasLt, EveryFunctionIsFound) {
  try {
    const CublasLt& lt = cublas_lt();
    EXPECT_GE(lt.version(), 120800u);  // the first with block-scaled formats
    EXPECT_NO_THROW(lt.check(CUBLAS_STATUS_SUCCESS, "nothing"));
    EXPECT_THROW(lt.check(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmul"), Error);
  } catch (const Error& e) {
    if (std::string_view(e.what()).find("cannot open shared object") == std::string_view::npos) {
      throw;
    }
    GTEST_SKIP() << e.what();
  }
}

}  // namespace
}  // namespace qstep::ops
