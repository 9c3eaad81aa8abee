#include "trainer/step/replica_check.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "tests/support/thread_comm.h"
#include "tests/trainer/split_testing.h"

namespace qstep::trainer::testing {
namespace {

using Damage = std::function<void(int world_rank, RankParameters& parameters)>;

// What the ranks of a mesh say, all of them the same; empty: nothing.
std::string verdict(int n_data, int n_tensor, const Damage& damage) {
  const ModelConfig model = split_cases()[0].model;
  std::vector<std::string> said(static_cast<size_t>(n_data * n_tensor));
  test::run_ranks(n_data * n_tensor, [&](parallel::Comm& world) {
    const RankGroups groups(world, n_tensor);
    const parallel::Mesh& mesh = groups.mesh();
    RankParameters p(model, ops::Dtype::kBf16,
                     {.n_data = n_data,
                      .data = mesh.data_rank(world.rank()),
                      .tensor = {n_tensor, mesh.tensor_rank(world.rank())}});
    init_parameters(*p.ops, p.plan, p.values, p.scratch, 9);
    damage(world.rank(), p);
    try {
      ReplicaCheck(groups, p.plan, p.values.weight.flat).run(*p.ops, 7);
    } catch (const ops::Error& error) {
      EXPECT_EQ(ops::ExitCode::kCorruption, error.code());
      said[static_cast<size_t>(world.rank())] = error.what();
    }
  });
  EXPECT_EQ(1u, std::set<std::string>(said.begin(), said.end()).size());
  return said[0];
}

// Flips a bit of element i of a weight.
void flip(const ops::Tensor& weight, int64_t i) { weight.as<ops::Bf16>()[i].bits ^= 1; }

TEST(ReplicaCheck, SaysNothingOfEqualRanks) {
  for (const auto& [n_data, n_tensor] : {std::pair(1, 1), {3, 1}, {1, 2}, {2, 2}}) {
    EXPECT_EQ("", verdict(n_data, n_tensor, [](int, RankParameters&) {}));
  }
}

TEST(ReplicaCheck, NamesTheRankAndThePartOfTheModel) {
  const auto in = [&](int n_data, int n_tensor, int where, auto&& weight_of) {
    return verdict(n_data, n_tensor, [&](int rank, RankParameters& p) {
      if (rank == where) {
        const ops::Tensor& weight = weight_of(p.values.weight.views);
        flip(weight, weight.size() - 1);
      }
    });
  };
  const auto qkv = [](auto& w) -> auto& { return w.blocks[1].qkv; };
  const auto norm = [](auto& w) -> auto& { return w.blocks[0].norm2; };
  const auto head = [](auto& w) -> auto& { return w.head; };
  const auto wte = [](auto& w) -> auto& { return w.wte; };
  const auto expect = [](const std::string& part, const std::string& text) {
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, part, text);
  };
  expect("behind step 7, weights of rank 2 differ from those of ranks 0 and 1, first in blocks.1:",
         in(3, 1, 2, qkv));
  expect("weights of rank 0 differ from those of ranks 1 and 2, first in the embeddings:",
         in(3, 1, 0, wte));
  expect("first in what follows the blocks:", in(3, 1, 1, head));
  // The rank's own part is alike within a data-parallel group only.
  expect("weights of rank 5 differ from those of ranks 1 and 3, first in blocks.1:",
         in(3, 2, 5, qkv));
  // What every rank of a tensor group has.
  expect(
      "weights that are not cut of rank 1 differ from those of ranks 0 and 2, first in blocks.0:",
      in(1, 3, 1, norm));
}

// Two ranks, one damaged: none can say which.
TEST(ReplicaCheck, NamesBothOfTwo) {
  const std::string text = verdict(2, 1, [](int rank, RankParameters& p) {
    if (rank == 1) flip(p.values.weight.views.wte, 0);
  });
  for (const char* rank : {"rank 0", "rank 1"}) {
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, rank, text);
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
