// A rank that is slow is named by the report of its run.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "tests/trainer/ranks_fixture.h"
#include "trainer/report/report_json.h"

namespace qstep::trainer::testing {
namespace {

class Straggler : public RanksTest {};

// The test stops one rank for two thirds of the time, in pieces shorter than its steps.
TEST_F(Straggler, IsNamed) {
  constexpr int kSlow = 1;
  MpiRun run(notes(), 2, train("slow", {"train.steps=60", "train.eval_every=0"}));
  ASSERT_TRUE(wait_for_steps(run, "slow", 1)) << run.log();
  bool ended = false;
  while (!ended) {
    run.signal(kSlow, SIGSTOP);
    std::this_thread::sleep_for(std::chrono::milliseconds(4));
    run.signal(kSlow, SIGCONT);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ended = steps_done("slow") >= 60;
  }
  ASSERT_EQ(codes_of(2, 0), run.wait_codes()) << run.log();
  const report::Run read = report::read_run(dir("slow"));
  const report::Json ranks = report::report_json({&read, 1}).at("runs")[0].at("ranks");
  EXPECT_EQ(kSlow, ranks.at("straggler")) << ranks.dump(1);
  EXPECT_LT(ranks.at("ranks")[kSlow].at("score").get<double>(), 0.97);
}

}  // namespace
}  // namespace qstep::trainer::testing
