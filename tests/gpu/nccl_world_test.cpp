// The NCCL world with the real libraries: a communicator of one rank where a GPU is; elsewhere,
// what the binary says then. tests/parallel/nccl_world_test has the rest, without a GPU.
#include "parallel/nccl_world.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <vector>

#include "parallel/device_reduce_tree.h"
#include "parallel/reduce_tree.h"
#include "tests/parallel/rank_data.h"

namespace qstep::parallel {
namespace {

bool has_gpu() {
  int n = 0;
  return cudaGetDeviceCount(&n) == cudaSuccess && n > 0;
}

// Elements in device memory.
class OnDevice {
 public:
  OnDevice(Dtype dtype, const Bytes& elements)
      : n_bytes_(elements.size()),
        tensor_(ops::matrix(nullptr, dtype, 1,
                            static_cast<int64_t>(n_bytes_) / ops::size_bytes(dtype))) {
    EXPECT_EQ(cudaSuccess, cudaMalloc(&tensor_.data, n_bytes_));
    EXPECT_EQ(cudaSuccess,
              cudaMemcpy(tensor_.data, elements.data(), n_bytes_, cudaMemcpyHostToDevice));
  }
  ~OnDevice() { cudaFree(tensor_.data); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  const Tensor& tensor() const { return tensor_; }
  Bytes bytes() const {
    Bytes bytes(n_bytes_);
    EXPECT_EQ(cudaSuccess,
              cudaMemcpy(bytes.data(), tensor_.data, n_bytes_, cudaMemcpyDeviceToHost));
    return bytes;
  }

 private:
  size_t n_bytes_;
  Tensor tensor_;
};

void expect_error_without_gpu() {
  const std::unique_ptr<Comm> hosts = make_single();
  try {
    make_nccl(*hosts, nullptr);
    ADD_FAILURE() << "a world of GPUs without a GPU";
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kGpu, error.code()) << error.what();
  }
}

TEST(NcclLibrary, IsOpenedOrMissedInOneLine) {
  try {
    EXPECT_EQ(0u, nccl_name().find("NCCL 2.")) << nccl_name();
  } catch (const ops::Error& error) {
    EXPECT_EQ(ops::ExitCode::kGpu, error.code());
    EXPECT_NE(std::string::npos, std::string(error.what()).find("libnccl.so.2")) << error.what();
  }
}

TEST(NcclWorld, OneRankKeepsWhatItHas) {
  if (!has_gpu()) return expect_error_without_gpu();
  const std::unique_ptr<Comm> hosts = make_single();
  const std::unique_ptr<Comm> comm = make_nccl(*hosts, nullptr);
  EXPECT_EQ("nccl", comm->name());
  EXPECT_EQ(1, comm->size());
  const Bytes input = random_elements(Dtype::kF32, 100'000, 1);
  const OnDevice x(Dtype::kF32, input), y(Dtype::kF32, Bytes(input.size()));
  const std::vector<int64_t> whole{0, 100'000};
  comm->all_reduce(x.tensor(), Reduce::kSum);
  comm->reduce_scatter(x.tensor(), whole);
  comm->all_gather(x.tensor(), whole);
  comm->broadcast(x.tensor(), 0);
  comm->all_to_all(y.tensor(), x.tensor());
  const std::unique_ptr<Comm> part = comm->split(0, 0);
  part->wait(part->barrier());
  comm->synchronize();
  EXPECT_EQ(input, x.bytes());
  EXPECT_EQ(input, y.bytes());
  EXPECT_GT(comm->times().busy_ms, 0);
}

// Any rank of any number of ranks, all types: the bits of the host.
TEST(DeviceReduceTree, GivesTheBitsOfTheHost) {
  if (!has_gpu()) return expect_error_without_gpu();
  const int64_t n = 1003, stride = 1024;
  struct Kind {
    DeviceReduce device;
    Dtype dtype;
    Reduce reduce;
  };
  const Kind kinds[] = {{DeviceReduce::kSumF32, Dtype::kF32, Reduce::kSum},
                        {DeviceReduce::kSumBf16, Dtype::kBf16, Reduce::kSum},
                        {DeviceReduce::kSumI32, Dtype::kI32, Reduce::kSum},
                        {DeviceReduce::kMaxF32, Dtype::kF32, Reduce::kMax},
                        {DeviceReduce::kMaxI32, Dtype::kI32, Reduce::kMax}};
  for (const auto& [device, dtype, reduce] : kinds) {
    for (const int n_ranks : {1, 2, 3, 4, 7, 8, 100}) {
      const int rank = n_ranks / 2;
      std::vector<Bytes> inputs;
      std::vector<const void*> leaves;
      Bytes staged(static_cast<size_t>(n_ranks * stride * ops::size_bytes(dtype)));
      for (int r = 0; r < n_ranks; ++r) {
        inputs.push_back(random_elements(dtype, n, static_cast<uint64_t>(r)));
        const int64_t place = r < rank ? r : r - 1;
        if (r == rank) continue;
        std::copy(inputs.back().begin(), inputs.back().end(),
                  staged.begin() + place * stride * ops::size_bytes(dtype));
      }
      for (const Bytes& input : inputs) leaves.push_back(input.data());
      const OnDevice own(dtype, inputs[static_cast<size_t>(rank)]), others(dtype, staged);
      EXPECT_EQ(cudaSuccess, launch_reduce_tree({.out = own.tensor().data,
                                                 .own = own.tensor().data,
                                                 .staged = others.tensor().data,
                                                 .stride = stride,
                                                 .n = n,
                                                 .rank = rank,
                                                 .n_ranks = n_ranks,
                                                 .reduce = device},
                                                nullptr));
      Bytes expected(inputs[0].size());
      reduce_tree(expected.data(), dtype, leaves, dtype, n, reduce);
      EXPECT_EQ(expected, own.bytes()) << n_ranks << " ranks, " << ops::name(dtype);
    }
  }
}

}  // namespace
}  // namespace qstep::parallel
