#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/support/thread_comm.h"

namespace qstep::parallel {
namespace {

TEST(Mesh, EveryRankHasOnePlace) {
  for (const int tensor : {1, 2, 4, 8}) {
    const Mesh mesh = make_mesh(8, tensor);
    EXPECT_EQ(tensor, mesh.tensor);
    EXPECT_EQ(8 / tensor, mesh.data);
    EXPECT_EQ(8, mesh.size());
    std::set<std::pair<int, int>> places;
    for (int rank = 0; rank < mesh.size(); ++rank) {
      const int d = mesh.data_rank(rank), t = mesh.tensor_rank(rank);
      EXPECT_TRUE(0 <= d && d < mesh.data && 0 <= t && t < mesh.tensor);
      EXPECT_EQ(rank, mesh.rank(d, t));
      EXPECT_EQ(rank - t, mesh.rank(d, 0)) << "a tensor group is a run of ranks";
      places.emplace(d, t);
    }
    EXPECT_EQ(8u, places.size());
  }
}

TEST(Mesh, GroupsAreOfEqualSize) {
  EXPECT_THROW(make_mesh(8, 3), ops::Error);
  EXPECT_THROW(make_mesh(8, 0), ops::Error);
  EXPECT_THROW(make_mesh(8, 16), ops::Error);
  EXPECT_EQ(2, make_mesh(6, 3).data);
}

// ---- nodes --------------------------------------------------------------------------------

// The launches of ranks 0, 1, ... by the node that each is on.
std::vector<Launch> launches(const std::vector<int>& node_of) {
  std::vector<Launch> all;
  for (size_t rank = 0; rank < node_of.size(); ++rank) {
    const auto here = node_of.begin() + static_cast<ptrdiff_t>(rank);
    all.push_back(
        {.rank = static_cast<int>(rank),
         .size = static_cast<int>(node_of.size()),
         .local_rank = static_cast<int>(std::count(node_of.begin(), here, *here)),
         .local_size = static_cast<int>(std::count(node_of.begin(), node_of.end(), *here)),
         .launcher = "test"});
  }
  return all;
}

bool refused(const std::vector<int>& node_of, int tensor) {
  for (const Launch& launch : launches(node_of)) {
    try {
      require_groups_in_nodes(launch, tensor);
    } catch (const ops::Error& error) {
      EXPECT_EQ(ops::ExitCode::kConfig, error.code());
      return true;
    }
  }
  return false;
}

bool crosses(const std::vector<int>& node_of, int tensor) {
  for (size_t rank = 0; rank < node_of.size(); ++rank) {
    const size_t first = rank - rank % static_cast<size_t>(tensor);
    if (node_of[rank] != node_of[first]) return true;
  }
  return false;
}

// All 3^8 ways to deal 8 ranks to 3 nodes.
TEST(Mesh, RefusesExactlyTheGroupsThatCrossNodes) {
  int n_refused = 0;
  for (int way = 0; way < 6561; ++way) {
    std::vector<int> node_of;
    for (int rank = 0, rest = way; rank < 8; ++rank, rest /= 3) node_of.push_back(rest % 3);
    for (const int tensor : {1, 2, 4, 8}) {
      const bool expected = crosses(node_of, tensor);
      n_refused += expected ? 1 : 0;
      ASSERT_EQ(expected, refused(node_of, tensor)) << way << ", groups of " << tensor;
    }
  }
  EXPECT_LT(0, n_refused);
}

TEST(Mesh, SaysWhatWouldWork) {
  const auto text = [](const Launch& launch, int tensor) -> std::string {
    try {
      require_groups_in_nodes(launch, tensor);
    } catch (const ops::Error& error) {
      return error.what();
    }
    return "";
  };
  // 6 ranks on each node.
  EXPECT_EQ(
      "parallel.tensor = 4 wants its groups of ranks within nodes, but rank 6 is number 0 of the 6 "
      "on its node: write parallel.tensor = 2, or fill nodes one after the other with a multiple "
      "of 4 ranks (srun --distribution=block --ntasks-per-node=4, mpirun --map-by ppr:4:node)",
      text({.rank = 6, .size = 12, .local_rank = 0, .local_size = 6, .launcher = "srun"}, 4));
  EXPECT_EQ("",
            text({.rank = 6, .size = 12, .local_rank = 0, .local_size = 6, .launcher = "srun"}, 3));
}

// ---- groups ---------------------------------------------------------------------------------

TEST(Mesh, GroupsHoldTheRanksOfARowAndAColumn) {
  for (const int tensor : {1, 2, 3, 6}) {
    test::run_ranks(6, [&](Comm& world) {
      const Mesh mesh = make_mesh(world.size(), tensor);
      const std::unique_ptr<Comm> row = split_tensor(world, mesh), column = split_data(world, mesh);
      EXPECT_EQ(mesh.tensor, row->size());
      EXPECT_EQ(mesh.data, column->size());
      EXPECT_EQ(mesh.tensor_rank(world.rank()), row->rank());
      EXPECT_EQ(mesh.data_rank(world.rank()), column->rank());
      std::vector<std::string> in_row, in_column;
      for (int t = 0; t < mesh.tensor; ++t) {
        in_row.push_back(std::to_string(mesh.rank(mesh.data_rank(world.rank()), t)));
      }
      for (int d = 0; d < mesh.data; ++d) {
        in_column.push_back(std::to_string(mesh.rank(d, mesh.tensor_rank(world.rank()))));
      }
      const std::string own = std::to_string(world.rank());
      EXPECT_EQ(in_row, all_gather_text(*row, own));
      EXPECT_EQ(in_column, all_gather_text(*column, own));
    });
  }
}

}  // namespace
}  // namespace qstep::parallel
