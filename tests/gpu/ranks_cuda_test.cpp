// Training on ranks with a GPU each, over NCCL: as many threads of this process, on a machine that
// has so many; on another one, what it says.
#include <gtest/gtest.h>
#include <omp.h>

#include <mutex>

#include "tests/support/thread_comm.h"
#include "tests/trainer/recipe_testing.h"
#include "trainer/backend/rank_backend.h"
#include "trainer/backend/rank_device.h"
#include "trainer/base/agreement.h"

namespace qstep::trainer::testing {
namespace {

constexpr int kRanks = 2;
constexpr int64_t kMicros = 4, kSteps = 5;

int n_gpus() {
  std::string why;
  return ops::count_gpus(why);
}

struct Outcome {
  std::vector<float> results;  // losses and norms
  std::vector<std::byte> weights;
  int64_t bytes_sent = 0;
};

// Of rank 0. All ranks have the same weights in the end.
Outcome train(const Config& config, int n_ranks) {
  Outcome outcome;
  std::mutex mutex;
  test::run_ranks(n_ranks, [&](parallel::Comm& hosts) {
    omp_set_num_threads(1);
    const RankDevice chosen = choose_device(Device::kCuda, hosts);
    const RankBackend backend(chosen.device, hosts);
    Trainer trainer(backend.ops(), config, backend.worlds());
    const parallel::Mesh& mesh = trainer.groups().mesh();
    const std::vector<test::Batch> all = learnable_batches(kMicros * kSteps, 920);
    const int64_t share = kMicros / mesh.data;
    std::vector<test::Batch> mine;
    for (int64_t step = 0; step < kSteps; ++step) {
      const auto first = all.begin() + step * kMicros + mesh.data_rank(hosts.rank()) * share;
      mine.insert(mine.end(), first, first + share);
    }
    FixedBatches batches(std::move(mine));
    std::vector<float> results;
    int64_t bytes_sent = 0;
    for (int64_t step = 1; step <= kSteps; ++step) {
      const StepResult result = trainer.step(batches, 3e-3, step);
      results.insert(results.end(), {result.loss, result.grad_norm});
      bytes_sent += result.comm_bytes;
      const TimeRange& when = trainer.timeline().step();
      for (const TimeSpan& span : trainer.timeline().spans()) {
        EXPECT_LE(when.begin, span.when.begin);
        EXPECT_LE(span.when.end, when.end);
      }
    }
    EXPECT_NO_THROW(trainer.check_replicas());
    const ops::Tensor& weight = trainer.parameters().weight.flat;
    std::vector<std::byte> weights(static_cast<size_t>(weight.bytes()));
    backend.ops().download(weights.data(), weight);
    const std::lock_guard lock(mutex);
    if (hosts.rank() == 0) outcome = {results, weights, bytes_sent};
  });
  return outcome;
}

class RanksOnGpus : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (n_gpus() < kRanks) GTEST_SKIP() << "needs " << kRanks << " NVIDIA GPUs";
  }
  Config config() const {
    Config c = recipe_config(load_recipe(GetParam()), kMicros, kSteps);
    c.timing.level = TimingLevel::kPhases;
    return c;
  }
};
INSTANTIATE_TEST_SUITE_P(Recipes, RanksOnGpus, ::testing::Values("fp32", "bf16", "mxfp8", "nvfp4"));

TEST_P(RanksOnGpus, GiveTheBitsOfOne) {
  const Outcome alone = train(config(), 1), shared = train(config(), kRanks);
  EXPECT_EQ(alone.results, shared.results);
  EXPECT_TRUE(alone.weights == shared.weights);
  EXPECT_EQ(0, alone.bytes_sent);
  EXPECT_GT(shared.bytes_sent, 0);
}

TEST_P(RanksOnGpus, ShareLayersWithTheSameBitsWithGraphsAndWithout) {
  Config c = config();
  c.model.n_heads = c.model.n_kv_heads = 4;
  c.model.head_dim = 64;
  c.model.ffn_width = 256;
  c.parallel.tensor = kRanks;
  const Outcome recorded = train(c, kRanks);
  c.run.cuda_graphs = false;
  const Outcome called = train(c, kRanks);
  EXPECT_EQ(called.results, recorded.results);
  EXPECT_TRUE(called.weights == recorded.weights);
}

// One machine, more ranks than it has GPUs: none is left waiting, and none computes elsewhere.
TEST(RanksWithoutGpus, AreRefusedTogether) {
  const int n_ranks = n_gpus() + 1 < kRanks ? kRanks : n_gpus() + 1;
  std::mutex mutex;
  int n_refused = 0;
  test::run_ranks(n_ranks, [&](parallel::Comm& hosts) {
    EXPECT_EQ(Device::kCpu, choose_device(Device::kAuto, hosts).device);
    try {
      choose_device(Device::kCuda, hosts);
    } catch (const AgreedError& error) {
      EXPECT_EQ(ops::ExitCode::kGpu, error.code());
      const std::lock_guard lock(mutex);
      ++n_refused;
    }
  });
  EXPECT_EQ(n_ranks, n_refused);
}

}  // namespace
}  // namespace qstep::trainer::testing
