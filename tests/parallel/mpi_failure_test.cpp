// What becomes of a world when a rank fails: this program starts itself under mpirun, and looks at
// how that ends.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "parallel/collective_observer.h"
#include "parallel/mpi_world.h"

namespace qstep::parallel {
namespace {

using std::chrono::milliseconds;

// ---- what the ranks do
// ----------------------------------------------------------------------------

// Says after a while that a peer died.
class Messenger final : public CollectiveObserver {
 public:
  void entered(const CollectiveRecord& record) override { operation_ = record.operation; }
  void left(const CollectiveRecord&) override {}
  std::optional<Failure> failure() override {
    if (std::chrono::steady_clock::now() < time_) return std::nullopt;
    return Failure{ops::ExitCode::kPeerDied, fmt::format("a peer died in {}", operation_)};
  }

 private:
  std::chrono::steady_clock::time_point time_ =
      std::chrono::steady_clock::now() + milliseconds(300);
  std::string operation_;
};

void expect_throws(Comm& comm, Comm::Ticket ticket, std::string_view what) {
  try {
    comm.wait(ticket);
    fmt::print("{}: no error\n", what);
  } catch (const ops::Error& error) {
    fmt::print("{}: code {}, {}\n", what, static_cast<int>(error.code()), error.what());
  }
  std::fflush(stdout);
}

// Rank 0 waits for collectives that nobody joins, until the observer knows better.
void observer_reports(Comm& comm) {
  if (comm.rank() != 0) std::this_thread::sleep_for(std::chrono::hours(1));
  Messenger messenger;
  comm.observe(&messenger);
  float x = 1;
  const ops::Tensor view = ops::view(std::span(&x, 1));
  const std::vector<int64_t> bounds{0, 1, 1};
  const Comm::Ticket first = comm.receive(view, 1);
  const Comm::Ticket second = comm.all_gather(view, bounds);
  expect_throws(comm, first, "first");
  expect_throws(comm, second, "second");
  expect_throws(comm, comm.barrier(), "later");
  comm.observe(nullptr);
}

// Rank 0 leaves by an exception while the other stands in a collective that it will never join.
void rank_leaves(Comm& comm) {
  float x = 1;
  if (comm.rank() == 0) {
    comm.receive(ops::view(std::span(&x, 1)), 1);  // and has something of its own under way
    std::this_thread::sleep_for(milliseconds(100));
    throw ops::Error(ops::ExitCode::kConfig, "rank 0 does not like its configuration");
  }
  comm.wait(comm.barrier());
}

// The ranks disagree about how much they gather.
void sizes_differ(Comm& comm) {
  std::vector<float> x(static_cast<size_t>(comm.rank() == 0 ? 20 : 10));
  const int64_t n = static_cast<int64_t>(x.size());
  const std::vector<int64_t> bounds{0, n / 2, n};
  comm.wait(comm.all_gather(ops::view(std::span(x)), bounds));
}

void begins_twice(Comm&) { make_mpi(); }

int run_rank(const std::string& scenario) {
  int code = 0;
  try {
    const std::unique_ptr<Comm> comm = make_mpi();
    if (scenario == "observer_reports") observer_reports(*comm), code = 40;
    if (scenario == "rank_leaves") rank_leaves(*comm);
    if (scenario == "sizes_differ") sizes_differ(*comm);
    if (scenario == "begins_twice") begins_twice(*comm);
  } catch (const ops::Error& error) {
    fmt::print("rank ends: {}\n", error.what());
    code = static_cast<int>(error.code());
  }
  std::fflush(stdout);
  ::_exit(code);
}

// ---- what becomes of it
// ---------------------------------------------------------------------------

struct Outcome {
  int code = -1;
  std::string output;
  bool has(std::string_view text) const { return output.find(text) != std::string::npos; }
};

Outcome run_two_ranks(const std::string& scenario) {
  // As root, which people are in containers, Open MPI wants to be told twice.
  const std::string command = fmt::format(
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 '{}' --oversubscribe "
      "--bind-to none -n 2 '{}' rank {} 2>&1",
      QSTEP_MPIEXEC, testing::internal::GetArgvs()[0], scenario);
  FILE* const pipe = ::popen(command.c_str(), "r");
  Outcome outcome;
  std::array<char, 4096> buffer;
  while (const size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    outcome.output.append(buffer.data(), n);
  }
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  return outcome;
}

TEST(MpiFailure, TheObserversWordEndsEveryWait) {
  const Outcome outcome = run_two_ranks("observer_reports");
  EXPECT_EQ(40, outcome.code) << outcome.output;
  for (const char* wait : {"first", "second", "later"}) {
    EXPECT_TRUE(outcome.has(fmt::format("{}: code 40, a peer died in receive\n", wait)))
        << outcome.output;
  }
}

TEST(MpiFailure, ARankThatLeavesEndsTheOthersWithItsCode) {
  const Outcome outcome = run_two_ranks("rank_leaves");
  EXPECT_EQ(20, outcome.code) << outcome.output;
  EXPECT_TRUE(outcome.has("rank ends: rank 0 does not like its configuration")) << outcome.output;
}

TEST(MpiFailure, CollectivesOfDifferentSizesAreFound) {
  const Outcome outcome = run_two_ranks("sizes_differ");
  EXPECT_EQ(1, outcome.code) << outcome.output;
  EXPECT_TRUE(outcome.has("the ranks' collectives differ")) << outcome.output;
}

TEST(MpiFailure, AProcessHasOneMpiWorld) {
  const Outcome outcome = run_two_ranks("begins_twice");
  EXPECT_EQ(1, outcome.code) << outcome.output;
  EXPECT_TRUE(outcome.has("one MPI world")) << outcome.output;
}

}  // namespace
}  // namespace qstep::parallel

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "rank") return qstep::parallel::run_rank(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
