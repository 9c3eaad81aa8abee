// Whole runs on several ranks that are asked to stop: by a signal to any rank, by one to mpirun, by
// a second one, and by the time limit.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "tests/support/compare.h"
#include "tests/trainer/ranks_fixture.h"

namespace qstep::trainer::testing {
namespace {

// Long enough to be stopped a few times, with an evaluation every second step and a save every
// tenth.
const Words kLong{"train.steps=90",    "train.global_batch=4", "train.eval_every=2",
                  "run.save_every=10", "train.eval_batches=6", "run.keep_last=2"};

class StopSignals : public RanksTest {
 protected:
  // Somewhere in a step, an evaluation or a save.
  static void wait_a_moment(test::Random& random) {
    std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 20'000)));
  }

  // What a stop in order leaves behind; returns the step.
  int64_t expect_preempted(const std::string& name) const {
    const Json reason = exit_reason(name);
    EXPECT_EQ(10, reason.at("code"));
    EXPECT_EQ("preempted", reason.at("name"));
    EXPECT_EQ(true, reason.at("requeue"));
    const int64_t step = reason.at("step");
    EXPECT_EQ(checkpoint(name, step), reason.at("last_checkpoint"));
    EXPECT_EQ(step, steps_done(name));
    EXPECT_EQ(step, CheckpointReader(checkpoint(name, step)).state().step);
    return step;
  }
};

TEST_F(StopSignals, ToAnyRankSaveAndEndAll) {
  finish("whole", 1, kLong);
  test::Random random(2103);
  int64_t step = 0;
  for (const int number : {SIGTERM, SIGUSR1, SIGINT, SIGUSR2}) {
    const int n_ranks = random.integer(0, 1) == 0 ? 2 : 4;
    const auto rank = static_cast<int>(random.integer(0, n_ranks - 1));
    SCOPED_TRACE(fmt::format("signal {} to rank {} of {}", number, rank, n_ranks));
    MpiRun run(notes(), n_ranks, train("part", kLong));
    ASSERT_TRUE(wait_for_steps(run, "part", step + 2)) << run.log();
    wait_a_moment(random);
    run.signal(rank, number);
    ASSERT_EQ(codes_of(n_ranks, 10), run.wait_codes()) << run.log();
    EXPECT_EQ(10, run.wait());
    for (int r = 0; r < n_ranks; ++r) EXPECT_EQ("", run.err(r));
    EXPECT_TRUE(run.left_nothing());
    step = expect_preempted("part");
  }
  finish("part", 4, kLong);
  expect_same_run("whole", "part", 90);
}

// It hands SIGUSR1 and SIGUSR2 on to all ranks, which hear it at different moments.
TEST_F(StopSignals, ToMpirunReachAllRanks) {
  finish("whole", 2, kLong);
  int64_t step = 0;
  for (const int number : {SIGUSR1, SIGUSR2}) {
    MpiRun run(notes(), 4, train("part", kLong), EndedBy::kMpirun);
    ASSERT_TRUE(wait_for_steps(run, "part", step + 2)) << run.log();
    ::kill(run.mpirun(), number);
    ASSERT_EQ(10, run.wait()) << run.log();
    for (int rank = 0; rank < 4; ++rank) EXPECT_EQ("", run.err(rank));
    EXPECT_TRUE(run.left_nothing());
    step = expect_preempted("part");
  }
  finish("part", 2, kLong);
  expect_same_run("whole", "part", 90);
}

// SIGTERM and SIGINT it takes for itself: it ends the ranks, with SIGKILL a second later. Whether
// they have saved by then or not, the run goes on.
TEST_F(StopSignals, ThatMpirunEndsTheRanksForAreNoHarm) {
  // More than an idle machine does in the seconds that mpirun takes.
  Words longest = kLong;
  longest.push_back("train.steps=1500");
  finish("whole", 2, longest);
  int64_t step = 0;
  for (const int number : {SIGTERM, SIGINT}) {
    MpiRun run(notes(), 2, train("part", longest), EndedBy::kMpirun);
    ASSERT_TRUE(wait_for_steps(run, "part", step + 11)) << run.log();
    ::kill(run.mpirun(), number);
    ASSERT_NE(0, run.wait().value_or(0)) << run.log();
    EXPECT_TRUE(run.left_nothing());
    step = steps_done("part");
  }
  finish("part", 2, longest);
  expect_same_run("whole", "part", 1500);
}

// The rank is stopped meanwhile, so that both signals are there when it goes on.
TEST_F(StopSignals, ASecondOneEndsItsRankAtOnceAndThenTheOthers) {
  finish("whole", 2, kLong);
  int64_t step = 0;
  for (const int rank : {0, 2}) {
    SCOPED_TRACE(fmt::format("rank {}", rank));
    MpiRun run(notes(), 4, train("part", kLong));
    ASSERT_TRUE(wait_for_steps(run, "part", step + 11)) << run.log();
    for (const int number : {SIGSTOP, SIGTERM, SIGUSR1, SIGCONT}) run.signal(rank, number);
    std::vector<int> codes = codes_of(4, 40);
    codes[static_cast<size_t>(rank)] = 12;
    ASSERT_EQ(codes, run.wait_codes()) << run.log();
    EXPECT_NE(std::string::npos, run.err(rank).find("second signal")) << run.log();
    EXPECT_EQ(1u, run.error_lines().size()) << run.log();
    EXPECT_TRUE(run.left_nothing());
    step = steps_done("part");
  }
  finish("part", 4, kLong);
  expect_same_run("whole", "part", 90);
}

// The limit leaves room for a save that takes three times a second, so a second or so remains.
TEST_F(StopSignals, TheTimeLimitSavesAndEndsAll) {
  const auto words = [](const std::string& last) {
    return Words{"optimizer.schedule=constant", "train.global_batch=32", "train.eval_every=0",
                 "run.keep_last=2", last};
  };
  Words limited = words("train.steps=1000000");
  limited.push_back("run.max_minutes=0.07");
  MpiRun run(notes(), 4, train("part", limited));
  ASSERT_EQ(codes_of(4, 11), run.wait_codes()) << run.log();
  EXPECT_EQ(11, run.wait());
  EXPECT_TRUE(run.left_nothing());
  const Json reason = exit_reason("part");
  EXPECT_EQ(11, reason.at("code"));
  EXPECT_EQ(true, reason.at("requeue"));
  const int64_t step = reason.at("step");
  EXPECT_EQ(step > 0 ? checkpoint("part", step) : "", reason.at("last_checkpoint"));

  const Words to_the_end = words(fmt::format("train.steps={}", step + 2));
  finish("part", 2, to_the_end);
  finish("whole", 1, to_the_end);
  EXPECT_EQ(exact_part(rows_of(metrics("whole"), "step")),
            exact_part(rows_of(metrics("part"), "step")));
  expect_same_checkpoint(checkpoint("whole", step + 2), checkpoint("part", step + 2));
}

}  // namespace
}  // namespace qstep::trainer::testing
