#include "parallel/comm.h"

#include <gtest/gtest.h>

#include <vector>

namespace qstep::parallel {
namespace {

TEST(SingleProcess, CollectivesLeaveTensorsAsTheyAre) {
  const auto comm = make_single();
  EXPECT_EQ("single", comm->name());
  EXPECT_EQ(0, comm->rank());
  EXPECT_EQ(1, comm->size());
  std::vector<float> x{1.5f, -2.0f, 3.25f};
  const ops::Tensor view = ops::view(std::span(x));
  comm->all_reduce(view, Reduce::kSum);
  comm->all_reduce(view, Reduce::kMax);
  comm->broadcast(view, 0);
  const std::vector<int64_t> whole{0, 3};
  comm->reduce_scatter(view, whole);
  comm->all_gather(view, whole);
  comm->wait(comm->barrier());
  EXPECT_EQ((std::vector<float>{1.5f, -2.0f, 3.25f}), x);
}

TEST(SingleProcess, RefusesAnotherRootAndStridedTensors) {
  const auto comm = make_single();
  std::vector<float> x(6);
  const ops::Tensor view = ops::view(std::span(x), 2, 3);
  EXPECT_THROW(comm->broadcast(view, 1), ops::Error);
  EXPECT_THROW(comm->send(view, 0), ops::Error);
  EXPECT_THROW(comm->all_reduce(view.col_range(0, 2), Reduce::kSum), ops::Error);
}

TEST(SingleProcess, GathersItsOwnText) {
  const auto comm = make_single();
  EXPECT_EQ(std::vector<std::string>{"a text"}, all_gather_text(*comm, "a text"));
  EXPECT_EQ("another", broadcast_text(*comm, "another", 0));
}

}  // namespace
}  // namespace qstep::parallel
