// Which device the ranks of a node get, on machines that are made up.
#include "trainer/backend/rank_device.h"

#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "tests/support/thread_comm.h"
#include "trainer/base/agreement.h"

namespace qstep::trainer {
namespace {

// What a rank sees of its machine.
struct Sight {
  int n_gpus = 0;
  std::vector<std::string> places;  // of the GPUs it sees
  std::string refusal;              // of any of them; empty: none
  std::string no_nccl;              // empty: it is there
};

struct Choice {
  std::vector<Device> devices;    // by rank
  std::vector<int> taken;         // index of the GPU; -1: none
  std::set<std::string> notes;    // of all ranks
  std::set<std::string> refused;  // errors of all ranks
};

[[noreturn]] void refuse(const std::string& why) { throw ops::Error(ops::ExitCode::kGpu, why); }

Choice choose(Device wanted, const std::vector<Sight>& sights) {
  const size_t n = sights.size();
  Choice choice{std::vector<Device>(n, Device::kAuto), std::vector<int>(n, -1), {}, {}};
  std::mutex mutex;
  test::run_ranks(static_cast<int>(n), [&](parallel::Comm& hosts) {
    const auto rank = static_cast<size_t>(hosts.rank());
    const Sight& sight = sights[rank];
    const DeviceSeams seams{.count_gpus =
                                [&](std::string& why) {
                                  why = "there is no NVIDIA driver";
                                  return sight.n_gpus;
                                },
                            .take_gpu =
                                [&](int index) {
                                  if (!sight.refusal.empty()) refuse(sight.refusal);
                                  choice.taken[rank] = index;
                                  return sight.places.at(static_cast<size_t>(index));
                                },
                            .nccl =
                                [&] {
                                  if (!sight.no_nccl.empty()) refuse(sight.no_nccl);
                                  return std::string("NCCL 2.28.9");
                                }};
    try {
      const RankDevice found = choose_device(wanted, hosts, seams);
      const std::lock_guard lock(mutex);
      choice.devices[rank] = found.device;
      choice.notes.insert(found.note);
    } catch (const AgreedError& error) {
      EXPECT_EQ(ops::ExitCode::kGpu, error.code());
      const std::lock_guard lock(mutex);
      choice.refused.insert(error.what());
    }
  });
  return choice;
}

Sight node_of(int n_gpus) {
  Sight sight{.n_gpus = n_gpus, .places = {}, .refusal = "", .no_nccl = ""};
  for (int i = 0; i < n_gpus; ++i) sight.places.push_back(fmt::format("0000:{:02x}:00.0", i));
  return sight;
}

// Every rank computes on the CPU, and says this; or, where GPUs were demanded, this is the error.
void expect_refused(const std::vector<Sight>& sights, const std::string& part) {
  const Choice automatic = choose(Device::kAuto, sights);
  EXPECT_EQ(std::vector<Device>(sights.size(), Device::kCpu), automatic.devices);
  ASSERT_EQ(1u, automatic.notes.size());
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, part, *automatic.notes.begin());
  const Choice demanded = choose(Device::kCuda, sights);
  ASSERT_EQ(1u, demanded.refused.size()) << "ranks differ, or none refused";
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, part, *demanded.refused.begin());
  EXPECT_TRUE(demanded.notes.empty());
}

TEST(RankDevice, EachRankTakesTheGpuOfItsNumber) {
  for (const Device wanted : {Device::kAuto, Device::kCuda}) {
    const Choice found = choose(wanted, std::vector(4, node_of(8)));
    EXPECT_EQ(std::vector(4, Device::kCuda), found.devices);
    EXPECT_EQ((std::vector{0, 1, 2, 3}), found.taken);
    EXPECT_EQ(std::set<std::string>{""}, found.notes);
  }
}

TEST(RankDevice, ALauncherMayShowEachRankOneOfItsOwn) {
  std::vector<Sight> sights(2, node_of(1));
  sights[1].places = {"0000:43:00.0"};
  const Choice found = choose(Device::kCuda, sights);
  EXPECT_EQ(std::vector(2, Device::kCuda), found.devices);
  EXPECT_EQ((std::vector{0, 0}), found.taken);
}

TEST(RankDevice, OneGpuIsNotForTwoRanks) {
  expect_refused({node_of(1), node_of(1)},
                 "see one and the same GPU: a rank needs one of its own: start as many ranks on a "
                 "node as it has GPUs");
}

TEST(RankDevice, MoreRanksThanGpusAreTooMany) {
  expect_refused(std::vector(4, node_of(2)),
                 "4 ranks on this node, but 2 GPUs: a rank needs one of its own: start as many "
                 "ranks on a node as it has GPUs");
}

TEST(RankDevice, AllComputeOnTheSameKind) {
  expect_refused({node_of(2), node_of(0)}, "rank 1 on ");
  expect_refused({node_of(0), node_of(2)}, "there is no NVIDIA driver");
  Sight old = node_of(2);
  old.refusal = "this qstep holds no code for it";
  expect_refused({old, node_of(2)}, "rank 0 on ");
  expect_refused({old, old}, old.refusal);
}

TEST(RankDevice, GpusWithoutNcclAreNotTouched) {
  Sight sight = node_of(2);
  sight.no_nccl = "libnccl.so.2: cannot open shared object file";
  expect_refused({sight, sight}, sight.no_nccl);
  EXPECT_EQ(std::vector(2, -1), choose(Device::kAuto, {sight, sight}).taken);
}

TEST(RankDevice, MachinesWithoutGpusHaveNothingToSay) {
  const Choice found = choose(Device::kAuto, {node_of(0), node_of(0)});
  EXPECT_EQ(std::vector(2, Device::kCpu), found.devices);
  EXPECT_EQ(std::set<std::string>{""}, found.notes);
  EXPECT_EQ(1u, choose(Device::kCuda, {node_of(0), node_of(0)}).refused.size());
}

TEST(RankDevice, NobodyIsAskedWithoutNeed) {
  EXPECT_EQ(std::vector(2, -1), choose(Device::kCpu, {node_of(2), node_of(2)}).taken);
  for (const Device wanted : {Device::kCpu, Device::kAuto, Device::kCuda}) {
    const Choice alone = choose(wanted, {node_of(1)});
    EXPECT_EQ(std::vector{wanted}, alone.devices);
    EXPECT_EQ(std::vector{-1}, alone.taken);
  }
}

}  // namespace
}  // namespace qstep::trainer
