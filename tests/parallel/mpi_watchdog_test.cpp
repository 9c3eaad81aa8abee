// Three ranks over MPI, the last of which is killed, stopped or late in its third reduce_scatter:
// this program starts itself under mpirun, and looks at what the others say.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include "parallel/mpi_world.h"
#include "parallel/watchdog.h"

namespace qstep::parallel {
namespace {

constexpr int kRanks = 3;
constexpr int kTroubleIn = 3;  // the number of the reduce_scatter

// ---- what the ranks do
// ---------------------------------------------------------------------------

// Does to its process, from inside of a collective, what the scenario says.
class Trouble final : public CollectiveObserver {
 public:
  Trouble(Watchdog& watch, int signal) : watch_(watch), signal_(signal) {}
  void entered(const CollectiveRecord& record) override {
    watch_.entered(record);
    if (record.operation == "reduce_scatter" && ++n_ == kTroubleIn && signal_ != 0) {
      ::raise(signal_);
    }
  }
  void left(const CollectiveRecord& record) override { watch_.left(record); }
  std::optional<Failure> failure() override { return watch_.failure(); }

 private:
  Watchdog& watch_;
  int signal_;
  int n_ = 0;
};

void train(Comm& comm, Watchdog& watch, const std::string& scenario) {
  const bool last = comm.rank() == kRanks - 1;
  const int signal = scenario == "kill" ? SIGKILL : scenario == "stop" ? SIGSTOP : 0;
  Trouble trouble(watch, last ? signal : 0);
  comm.observe(&trouble);
  std::vector<float> x(3 << 16);
  const auto n = static_cast<int64_t>(x.size());
  const std::vector<int64_t> bounds{0, n / 3, 2 * n / 3, n};
  try {
    for (int step = 1; step <= 5; ++step) {
      watch.enter_phase(Phase::kStep, step);
      if (scenario == "late" && last && step == kTroubleIn) {
        std::this_thread::sleep_for(std::chrono::hours(1));
      }
      comm.wait(comm.reduce_scatter(ops::view(std::span(x)), bounds));
    }
    watch.goodbye();
  } catch (const ops::Error&) {
    comm.observe(nullptr);
    throw;
  }
  comm.observe(nullptr);
}

int run_rank(const std::string& scenario) {
  // As the trainer, which takes it as a wish: mpirun sends it when a rank died.
  std::signal(SIGTERM, SIG_IGN);
  WatchdogOptions options;
  options.limits.first_step_s = options.limits.step_s = scenario == "none" ? 60 : 2;
  options.beat_s = 0.1;
  options.answer_s = 1;
  options.leave_s = 1;
  std::unique_ptr<Comm> comm = make_mpi();
  const auto watch = Watchdog::start(*comm, options, nullptr);
  int code = 0;
  try {
    train(*comm, *watch, scenario);
    comm.reset();
  } catch (const ops::Error& error) {
    code = static_cast<int>(error.code());
    fmt::print("rank {}: code {}: {}\n", comm->rank(), code, error.what());
    watch->farewell(error.code(), error.what());
  }
  std::fflush(stdout);
  ::_exit(code);
}

// ---- what becomes of it
// --------------------------------------------------------------------------

struct Outcome {
  int code = -1;
  std::string output;
};

Outcome run_ranks(const std::string& scenario) {
  // As root, which people are in containers, Open MPI wants to be told twice. It kills a rank that
  // does not heed SIGTERM soon after; here a slow machine may have more time.
  const std::string command = fmt::format(
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 '{}' --oversubscribe --bind-to "
      "none --timeout 120 --mca odls_base_sigkill_timeout 4 -n {} '{}' rank {} 2>&1",
      QSTEP_MPIEXEC, kRanks, testing::internal::GetArgvs()[0], scenario);
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

TEST(R09_MpiWatchdog, AGoodRunEndsWithZero) {
  const Outcome outcome = run_ranks("none");
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "");
}

TEST(R09_MpiWatchdog, ARankKilledInAReduceScatterIsNamed) {
  const Outcome outcome = run_ranks("kill");
  EXPECT_NE(outcome.code, 0);
  for (const int r : {0, 1}) {
    EXPECT_PRED_FORMAT2(testing::IsSubstring, fmt::format("rank {}: code 40: rank 2 (", r),
                        outcome.output);
  }
  EXPECT_PRED_FORMAT2(testing::IsSubstring,
                      ") died (connection closed) in step 3, in the phase step\n", outcome.output);
}

TEST(R10_MpiWatchdog, ARankStoppedInAReduceScatterIsNamed) {
  const Outcome outcome = run_ranks("stop");
  EXPECT_EQ(outcome.code, 41) << outcome.output;
  for (const int r : {0, 1}) {
    EXPECT_PRED_FORMAT2(testing::IsSubstring, fmt::format("rank {}: code 41: rank 2 (", r),
                        outcome.output);
  }
  EXPECT_PRED_FORMAT2(testing::IsSubstring, ") hangs: it does not answer", outcome.output);
}

TEST(R10_MpiWatchdog, ARankThatIsLateForAReduceScatterIsNamed) {
  const Outcome outcome = run_ranks("late");
  EXPECT_EQ(outcome.code, 41) << outcome.output;
  for (const int r : {0, 1}) {
    EXPECT_PRED_FORMAT2(testing::IsSubstring, fmt::format("rank {}: code 41: rank 2 (", r),
                        outcome.output);
  }
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "it has not entered reduce_scatter", outcome.output);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "(786432 bytes, fp32)", outcome.output);
}

}  // namespace
}  // namespace qstep::parallel

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "rank") return qstep::parallel::run_rank(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
