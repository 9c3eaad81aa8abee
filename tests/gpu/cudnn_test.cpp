// cuDNN as it is found at run time: every function that is called is there, and a refusal says what
// was refused. Needs no GPU.
#include "ops/cuda/cudnn.h"

#include <gtest/gtest.h>

#include <array>

#include "ops/error.h"

namespace qstep::ops {
namespace {

TEST(Cudnn, SaysWhatIsMissingOrRefused) {
  try {
    EXPECT_TRUE(cudnn().name().starts_with("cuDNN 9."));
    EXPECT_NO_THROW(cudnn().check(CUDNN_STATUS_SUCCESS, "nothing"));
  } catch (const Error& e) {
    if (std::string_view(e.what()).find("cannot open shared object") == std::string_view::npos) {
      throw;
    }
    GTEST_SKIP() << e.what();
  }
  constexpr std::array<int64_t, 4> kDims{1, 1, 2, 8}, kStrides{16, 16, 8, 1};
  const auto tensor = [&] {
    CudnnDescriptor d(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    d.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, int64_t{7})
        .set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_BFLOAT16)
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16})
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::span<const int64_t>(kDims));
    return d;
  };
  CudnnDescriptor whole = tensor();
  whole.set(CUDNN_ATTR_TENSOR_STRIDES, std::span<const int64_t>(kStrides)).finalize();
  EXPECT_EQ(whole.get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID), 7);
  EXPECT_EQ(whole.get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE), CUDNN_DATA_BFLOAT16);
  try {
    tensor().finalize();
    ADD_FAILURE() << "accepted without strides";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kGpu);
    EXPECT_NE(std::string_view(e.what()).find("cudnnBackendFinalize"), std::string_view::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace qstep::ops
