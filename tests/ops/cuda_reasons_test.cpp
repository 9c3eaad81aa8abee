// What is said of GPUs that cannot be used: no GPU is needed to read it.
#include "ops/cuda/cuda_reasons.h"

#include <gtest/gtest.h>

namespace qstep::ops::cuda {
namespace {

// Each says these words, in one line.
void expect_words(const std::string& text, std::initializer_list<const char*> words) {
  for (const char* const word : words) {
    EXPECT_NE(text.find(word), std::string::npos) << word << " is not in: " << text;
  }
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
}

TEST(CudaReasons, OfADriver) {
  expect_words(old_driver_text(0, 13000), {"no NVIDIA driver", "install it", "--gpus"});
  // Expected, found, what to do.
  expect_words(old_driver_text(12040, 13010), {"CUDA 12.4", "CUDA 13.1", "newer driver"});
  expect_words(no_gpu_text(), {"lists no GPU", "CUDA_VISIBLE_DEVICES"});
}

TEST(CudaReasons, OfAnArchitecture) {
  expect_words(no_code_text("NVIDIA A100", 80, "9.0 and 10.0"),
               {"NVIDIA A100", "compute capability 8.0", "only for 9.0 and 10.0",
                "add 80 to CMAKE_CUDA_ARCHITECTURES"});
  expect_words(no_code_text("NVIDIA B300", 103, "9.0"), {"compute capability 10.3", "add 103"});
}

struct Case {
  int status;
  ExitCode code;
  const char* word;
};

TEST(CudaReasons, OfCallsThatFail) {
  for (const Case& c : {Case{2, ExitCode::kOutOfMemory, "train.micro_batch"},
                        {46, ExitCode::kGpu, "another process"},
                        {214, ExitCode::kGpu, "another node"},
                        {220, ExitCode::kGpu, "another node"},
                        {700, ExitCode::kGpu, "CUDA_LAUNCH_BLOCKING"},
                        {702, ExitCode::kGpu, "last checkpoint"},
                        {710, ExitCode::kGpu, "last checkpoint"},
                        {719, ExitCode::kGpu, "last checkpoint"},
                        {802, ExitCode::kGpu, "nvidia-fabricmanager"},
                        {803, ExitCode::kGpu, "reboot"},
                        {999, ExitCode::kGpu, "dmesg"}}) {
    const Error error = call_error(c.status, "cudaErrorSo", "so it is", "cudaMemcpy");
    EXPECT_EQ(c.code, error.code()) << c.status;
    expect_words(error.what(), {"cudaMemcpy", "so it is", "cudaErrorSo", c.word});
  }
  // Nothing is made up about others.
  EXPECT_STREQ("CUDA: cudaMemset: invalid argument (cudaErrorInvalidValue)",
               call_error(1, "cudaErrorInvalidValue", "invalid argument", "cudaMemset").what());
  for (const int status : {0, 1, 3, 99, 701, 703, 713, 720, 722, 801, 806}) {
    EXPECT_EQ("", advice_on(status)) << status;
  }
}

TEST(CudaReasons, OfFullMemory) {
  const Error error = memory_error(int64_t{48} << 30, int64_t{3} << 30, int64_t{140} << 30);
  EXPECT_EQ(ExitCode::kOutOfMemory, error.code());
  expect_words(error.what(),
               {"no 48.00 GiB left", "3.00 of its 140.00 GiB are free", "nvidia-smi"});
}

}  // namespace
}  // namespace qstep::ops::cuda
