#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include <set>

namespace qstep::parallel {
namespace {

TEST(Mesh, EveryRankHasOnePlace) {
  for (const int tensor : {1, 2, 4}) {
    const Mesh mesh = make_mesh(8, tensor, 4);
    EXPECT_EQ(8, mesh.size());
    std::set<std::pair<int, int>> places;
    for (int rank = 0; rank < mesh.size(); ++rank) {
      const int d = mesh.data_rank(rank), t = mesh.tensor_rank(rank);
      EXPECT_TRUE(0 <= d && d < mesh.data && 0 <= t && t < mesh.tensor);
      EXPECT_EQ(rank, mesh.rank(d, t));
      EXPECT_EQ(rank / 4, mesh.rank(d, 0) / 4) << "a tensor group stays in a node of 4";
      places.emplace(d, t);
    }
    EXPECT_EQ(8u, places.size());
  }
}

TEST(Mesh, RefusesWhatDoesNotComeOutEven) {
  const auto refused = [](int n_ranks, int tensor, int local_size) {
    try {
      make_mesh(n_ranks, tensor, local_size);
    } catch (const ops::Error& error) {
      return error.code() == ops::ExitCode::kConfig;
    }
    return false;
  };
  EXPECT_TRUE(refused(8, 3, 8));
  EXPECT_TRUE(refused(8, 0, 8));
  EXPECT_TRUE(refused(8, 16, 8));
  EXPECT_TRUE(refused(8, 8, 4));   // a group over two nodes
  EXPECT_TRUE(refused(12, 4, 6));  // every second group over two nodes
  EXPECT_FALSE(refused(6, 3, 6));
}

}  // namespace
}  // namespace qstep::parallel
