// Runs tests on every rank of a world: <program> single|mpi|nccl NUMBER_OF_RANKS [GTEST OPTION...].
//
// A test passes if it passed on all ranks; each rank prints its own failures. A test must make the
// same collectives on all ranks whatever it finds: EXPECT, never ASSERT.
#include "tests/parallel/world_main.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>

namespace qstep::parallel {
namespace {

Comm* the_world = nullptr;

// One line for each failure, with the rank: the ranks share one terminal.
class FailuresOfOneRank : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& test) override {
    test_ = fmt::format("{}.{}", test.test_suite_name(), test.name());
  }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    fmt::print(stderr, "[rank {}] {} failed at {}:{}: {}\n", the_world->rank(), test_,
               result.file_name() == nullptr ? "" : result.file_name(), result.line_number(),
               result.message());
    std::fflush(stderr);
  }
  std::string test_;  // asking UnitTest for it while it reports would never return
};

int run(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  ops::check(argc == 3, "expected the world's name and its number of ranks");
  const std::string kind = argv[1];
  const int n_ranks = std::stoi(argv[2]);
  const Worlds worlds = make_worlds(kind, n_ranks);
  Comm* const comm = worlds.tested.get();
  the_world = comm;
  // Without this, ranks that do not find each other would each pass alone.
  ops::check_equal(n_ranks, comm->size(), "ranks of the world");
  ops::check_equal(kind, comm->name(), "the world");
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (comm->rank() != 0) delete listeners.Release(listeners.default_result_printer());
  if (comm->size() > 1) listeners.Append(new FailuresOfOneRank);

  int32_t failed = RUN_ALL_TESTS();
  comm->wait(comm->all_reduce(ops::view(std::span(&failed, 1)), Reduce::kMax));
  if (failed != 0 && comm->rank() == 0) {
    fmt::print(stderr, "Some rank failed; its lines begin with [rank ...]\n");
  }
  return failed;
}

}  // namespace

Comm& world() { return *the_world; }

}  // namespace qstep::parallel

int main(int argc, char** argv) {
  try {
    return qstep::parallel::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    std::fflush(stderr);
    // Not exit(): handlers of MPI may wait for ranks that wait for this one.
    ::_exit(1);
  }
}
