// Attention's graphs computed on the host; and as cuDNN's own library sees them, for GPUs that are
// described to it: needs the library, but no GPU and no driver. What it accepts here it has kernels
// for, and has compiled them.
#include "ops/attention/attention_graph.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include "tests/gpu/fused_attention.h"
#include "tests/gpu/host_graph.h"

namespace qstep::test::attention {
namespace {

using ops::AttentionPlanKey;
using ops::CudnnDescriptor;
using ops::CudnnPlan;
using ops::CudnnTarget;
using ops::Direction;

// As cudaGetDeviceProperties has them, in the library's words.
struct Gpu {
  const char* name;
  int capability, n_processors, max_blocks, max_threads, shared_memory;  // of a multiprocessor
  int bus_bits;
  int64_t l2_bytes, memory_bytes;
};
constexpr Gpu kH200{"NVIDIA H200", 90, 132, 32, 2048, 232448, 6144, 62914560, 150109880320};
constexpr Gpu kB200{"NVIDIA B200", 100, 148, 32, 2048, 232448, 8192, 132644864, 191503138816};
constexpr Gpu kRtx5090{
    "NVIDIA GeForce RTX 5090", 120, 170, 24, 1536, 101376, 512, 100663296, 33662435328};
constexpr Gpu kGpus[] = {kH200, kB200, kRtx5090};

ops::CudnnGraph graph_of(const AttentionPlanKey& key) {
  ops::CudnnGraph graph;
  describe_attention(graph, key);
  return graph;
}

CudnnDescriptor described(const Gpu& gpu) {
  const std::string json = fmt::format(
      R"({{"cudaDeviceId":0,"deviceName":"{}","deviceVer":{},"driverVer":13000,)"
      R"("multiProcessorCount":{},"warpSize":32,"maxGridSize":[2147483647,65535,65535],)"
      R"("maxBlockSize":[1024,1024,64],"regsPerBlock":65536,"maxSharedMemoryPerBlock":49152,)"
      R"("maxSharedMemoryPerBlockOptin":{},"reservedSharedMemoryPerBlock":1024,)"
      R"("maxRegistersPerSM":65536,"maxCtasPerSM":{},"maxThreadsPerBlock":1024,)"
      R"("maxThreadsPerSM":{},"pciDeviceId":0,"isTccDriver":0,"supportCoopLaunch":1,)"
      R"("smClockRateKHz":1980000,"memClockRateKHz":3201000,"memoryBusWidth":{},"l2CacheSize":{},)"
      R"("totalGlobalMem":{}}})",
      gpu.name, 10 * gpu.capability, gpu.n_processors, gpu.shared_memory, gpu.max_blocks,
      gpu.max_threads, gpu.bus_bits, gpu.l2_bytes, gpu.memory_bytes);
  CudnnDescriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  device.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, std::span<const char>(json)).finalize();
  return device;
}

class AttentionGraph : public testing::Test {
 protected:
  void SetUp() override {
    // In the place of the driver, for this process: before anything looks for it.
    ASSERT_NE(dlopen(QSTEP_DRIVER_STAND_IN, RTLD_NOW | RTLD_GLOBAL), nullptr) << dlerror();
    try {
      (void)ops::cudnn();
      for (const Gpu& gpu : kGpus) devices_.push_back(described(gpu));
    } catch (const ops::Error& e) {
      GTEST_SKIP() << "needs a cuDNN 9 that takes this description of a GPU: " << e.what();
    }
  }

  CudnnTarget target(const Gpu& gpu) const {
    for (size_t i = 0; i < devices_.size(); ++i) {
      if (kGpus[i].capability == gpu.capability) {
        return {.handle = nullptr, .device = &devices_[i]};
      }
    }
    return {};
  }
  static std::optional<ops::CudnnEngine> preferred(const Gpu& gpu, const AttentionPlanKey& key) {
    return preferred_engine(key, gpu.capability, ops::cudnn().version());
  }
  size_t n_configurations(const Gpu& gpu, const AttentionPlanKey& key) const {
    const CudnnDescriptor graph = graph_of(key).finish(nullptr);
    return cudnn_configurations(graph, target(gpu), preferred(gpu, key)).size();
  }
  std::optional<CudnnPlan> plan(const Gpu& gpu, const AttentionPlanKey& key,
                                std::string& why) const {
    return CudnnPlan::make(graph_of(key), target(gpu), preferred(gpu, key), why);
  }

 private:
  std::vector<CudnnDescriptor> devices_;
};

constexpr Direction kDirections[] = {Direction::kForward, Direction::kBackward};

TEST_F(AttentionGraph, TheLibraryHasKernelsForModelsShapes) {
  for (const Gpu& gpu : kGpus) {
    for (const Direction direction : kDirections) {
      for (const int64_t head_dim : {64, 128}) {
        for (const int64_t n_kv_heads : {16, 4}) {
          for (const int64_t seq_len : {2, 33, 256, 1001, 8192}) {
            const AttentionShape shape = make_shape(2, seq_len, 16, n_kv_heads, head_dim);
            EXPECT_GT(n_configurations(gpu, attention_plan_key(shape, direction)), 0u)
                << gpu.name << (direction == Direction::kForward ? " forward " : " backward ")
                << describe(shape, Dtype::kBf16);
          }
        }
      }
    }
  }
}

// Rows of a wider buffer, and a part of the heads of one sequence.
TEST_F(AttentionGraph, RowsMayLieApart) {
  for (const Gpu& gpu : kGpus) {
    for (const Direction direction : kDirections) {
      AttentionPlanKey key =
          part_of(attention_plan_key(make_shape(2, 300, 16, 4, 64), direction), 4);
      EXPECT_EQ(key.batch, 1);
      EXPECT_EQ(key.n_kv_heads, 2);
      key.qkv_ld += 8;
      key.o_ld += 16;
      key.lse_ld += 3;
      if (direction == Direction::kBackward) {
        key.d_o_ld += 24;
        key.dqkv_ld += 32;
      }
      EXPECT_GT(n_configurations(gpu, key), 0u) << gpu.name;
    }
  }
}

// The kernels are compiled, which takes the library most of a second each.
TEST_F(AttentionGraph, PlansAreMade) {
  for (const Gpu& gpu : kGpus) {
    for (const Direction direction : kDirections) {
      // Lengths that come out uneven for two GPUs.
      for (const AttentionShape& shape :
           {make_shape(2, 2048, 16, 4, 128), make_shape(1, 1001, 12, 12, 64),
            make_shape(1, 1030, 12, 12, 64)}) {
        if (shape.batch == 1 && gpu.capability == kRtx5090.capability) continue;
        std::string why;
        const auto made = plan(gpu, attention_plan_key(shape, direction), why);
        ASSERT_TRUE(made) << gpu.name << ' ' << describe(shape, Dtype::kBf16) << ": " << why;
        // What plans of runs elsewhere count (qstep plan).
        const int64_t expected =
            ops::expected_attention_workspace(attention_plan_key(shape, direction), gpu.capability);
        EXPECT_GE(made->workspace_bytes(), expected) << gpu.name;
        EXPECT_LE(made->workspace_bytes(), expected + (1 << 20)) << gpu.name;
      }
    }
  }
}

// Blackwell's deterministic backward kernel is one that the library does not propose.
TEST_F(AttentionGraph, DatacenterBlackwellTakesItsOwnBackwardKernel) {
  const AttentionPlanKey key =
      attention_plan_key(make_shape(2, 1024, 16, 4, 64), Direction::kBackward);
  std::string why;
  const auto made = plan(kB200, key, why);
  ASSERT_TRUE(made) << why;
  EXPECT_EQ(preferred(kB200, key)->engine, made->engine());
  EXPECT_FALSE(preferred(kH200, key));
  EXPECT_FALSE(
      preferred(kB200, attention_plan_key(make_shape(2, 1024, 16, 4, 64), Direction::kForward)));
}

// The addresses get as far as the call that needs a GPU.
TEST_F(AttentionGraph, PlansTakeTheAddressesOfACall) {
  const FusedCase c(make_shape(1, 64, 4, 2, 64), 30);
  for (const Direction direction : kDirections) {
    ops::AttentionCall call = c.call(direction);
    const AttentionPlanKey key = attention_plan_key(call);
    std::string why;
    auto made = plan(kH200, key, why);
    ASSERT_TRUE(made) << why;
    std::vector<std::byte> delta(static_cast<size_t>(attention_delta_bytes(key)));
    std::vector<std::byte> workspace(static_cast<size_t>(made->workspace_bytes()));
    call.delta = delta.data();
    const ops::AttentionNumbers numbers = attention_numbers(key);
    ops::CudnnArguments arguments = attention_arguments(call, key, numbers, 0, 0);
    arguments.workspace = workspace.data();
    for (int run = 0; run < 2; ++run) {
      try {
        made->run(nullptr, arguments);
        ADD_FAILURE() << "ran without a handle";
      } catch (const ops::Error& e) {
        EXPECT_NE(std::string_view(e.what()).find("cudnnBackendExecute"), std::string_view::npos)
            << e.what();
      }
    }
  }
}

TEST_F(AttentionGraph, HeadSizesThatTheLibraryHasKernelsFor) {
  const auto key = [](int64_t head_dim, Direction direction) {
    return attention_plan_key(make_shape(1, 128, 4, 4, head_dim), direction);
  };
  EXPECT_GT(n_configurations(kB200, key(256, Direction::kForward)), 0u);
  EXPECT_GT(n_configurations(kH200, key(256, Direction::kBackward)), 0u);
  for (const Gpu& gpu : kGpus) {
    for (const Direction direction : kDirections) {
      std::string why;
      EXPECT_FALSE(plan(gpu, key(100, direction), why)) << gpu.name;
      EXPECT_NE(why.find("no kernel"), std::string::npos) << why;
    }
  }
}

// The graphs, the addresses of the parts and the numbers, without the library.
TEST(AttentionGraphOnHost, EveryPartStaysWithinTheBounds) {
  for (const AttentionShape& shape :
       {make_shape(1, 1, 1, 1, 8), make_shape(2, 7, 2, 1, 8), make_shape(3, 20, 4, 4, 24),
        make_shape(1, 68, 12, 3, 40), make_shape(2, 36, 8, 2, 64)}) {
    for (const int64_t n_parts : {1, 2, 5}) {
      SCOPED_TRACE(describe(shape, Dtype::kBf16) + fmt::format(", {} parts", n_parts));
      FusedCase c(shape, 31);
      for (const Direction direction : kDirections) {
        ops::AttentionCall call = c.call(direction);
        const AttentionPlanKey part = part_of(attention_plan_key(call), n_parts);
        const ops::AttentionNumbers numbers = attention_numbers(part);
        std::vector<std::byte> delta(static_cast<size_t>(attention_delta_bytes(part)));
        call.delta = delta.data();
        for (int64_t b = 0; b < shape.batch; b += part.batch) {
          for (int64_t kv = 0; kv < shape.n_kv_heads; kv += part.n_kv_heads) {
            HostGraph graph(attention_arguments(call, part, numbers, b, kv));
            describe_attention(graph, part);
          }
        }
      }
      c.expect_bounded_results();
    }
  }
}

TEST(AttentionPlans, ReasonsAreGivenBeforeTheLibraryIsAsked) {
  const auto key = [](int64_t seq_len, int64_t head_dim, Direction direction) {
    return attention_plan_key(make_shape(2, seq_len, 4, 2, head_dim), direction);
  };
  const AttentionPlanKey good = key(128, 64, Direction::kBackward);
  EXPECT_EQ(why_not_cudnn(good, 91800), "");
  EXPECT_EQ(why_not_cudnn(good, 91701), "cuDNN 9.17 is older than 9.18");
  EXPECT_EQ(why_not_cudnn(key(128, 20, Direction::kForward), 91900),
            "head size 20 is no multiple of 8");
  EXPECT_EQ(why_not_cudnn(key(1, 64, Direction::kForward), 91900), "");
  EXPECT_NE(why_not_cudnn(key(1, 64, Direction::kBackward), 91900), "");
  AttentionPlanKey apart = good;
  apart.dqkv_ld += 4;
  EXPECT_EQ(why_not_cudnn(apart, 91900), "its rows do not start at multiples of 16 bytes");
  ops::AttentionCall call;
  call.qkv.dtype = Dtype::kF32;
  EXPECT_EQ(why_not_cudnn(call), "its tensors are fp32, not bf16");
  call.qkv.dtype = Dtype::kBf16;
  EXPECT_EQ(why_not_cudnn(call), "");
  call.o.data = reinterpret_cast<void*>(uintptr_t{4104});
  EXPECT_EQ(why_not_cudnn(call), "its rows do not start at multiples of 16 bytes");
}

TEST(AttentionPlans, PartsAreEqualAndEnough) {
  const AttentionPlanKey key =
      attention_plan_key(make_shape(6, 64, 16, 8, 32), Direction::kBackward);
  for (int64_t n = 1; n <= 6 * 8; ++n) {
    const AttentionPlanKey part = ops::part_of(key, n);
    const int64_t parts = key.batch / part.batch * (key.n_kv_heads / part.n_kv_heads);
    EXPECT_GE(parts, n);
    EXPECT_EQ(key.batch % part.batch, 0);
    EXPECT_EQ(key.n_kv_heads % part.n_kv_heads, 0);
    EXPECT_EQ(part.n_heads, 2 * part.n_kv_heads);
    EXPECT_TRUE(part.batch == 1 || part.n_kv_heads == key.n_kv_heads) << n;
    EXPECT_EQ(part.qkv_ld, key.qkv_ld);
  }
  EXPECT_EQ(ops::part_of(key, 2).batch, 3);
  EXPECT_EQ(ops::part_of(key, 4).batch, 1);          // 4 does not divide 6
  EXPECT_EQ(ops::part_of(key, 7).n_kv_heads, 4);     // 6 sequences in halves of their heads
  EXPECT_EQ(ops::part_of(key, 1000).n_kv_heads, 1);  // as far as it goes
  AttentionPlanKey odd = key;
  odd.lse_ld = 63;
  EXPECT_EQ(ops::part_of(odd, 4), odd);
}

}  // namespace
}  // namespace qstep::test::attention
