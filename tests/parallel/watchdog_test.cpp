// Three processes, one of which dies, stops, fails or leaves: how the others end.
#include "parallel/watchdog.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "tests/parallel/rank_processes.h"

namespace qstep::test {
namespace {

using ops::Error;
using ops::ExitCode;
using parallel::Phase;

constexpr int kPeerDied = 40;
constexpr int kHang = 41;

void sleep_s(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// As far as any of the tests goes without trouble.
void two_good_steps(RankContext& rank) {
  for (const int64_t step : {15, 16}) {
    rank.watch().enter_phase(Phase::kStep, step);
    rank.collective(static_cast<uint64_t>(step));
  }
}

// Step 17: `trouble` on rank `where` before the collective that all enter.
RankProcesses::Body trouble_in_step_17(int where, std::function<void(RankContext&)> trouble) {
  return [where, trouble = std::move(trouble)](RankContext& rank) {
    two_good_steps(rank);
    rank.watch().enter_phase(Phase::kStep, 17);
    if (rank.rank() == where) trouble(rank);
    rank.collective(17);
  };
}

TEST(R09_Watchdog, AnOrderlyRunEndsWithZero) {
  RankProcesses ranks(3, patient_options(), two_good_steps);
  for (int r = 0; r < 3; ++r) {
    const RankEnd end = ranks.wait(r);
    EXPECT_TRUE(end.ended);
    EXPECT_EQ(end.code, 0) << end.what;
    EXPECT_EQ(end.stderr_text, "");
    EXPECT_EQ(end.reports, r == 0);
  }
}

TEST(R09_Watchdog, AKilledRankEndsTheOthersWithItsPlace) {
  RankProcesses ranks(3, patient_options(), trouble_in_step_17(2, [](auto&) { ::raise(SIGKILL); }));
  EXPECT_EQ(ranks.wait(2).code, 128 + SIGKILL);
  for (const int r : {0, 1}) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kPeerDied);
    EXPECT_EQ(end.what, ranks.name(2) + " died (connection closed) in step 17, in the phase step");
    EXPECT_EQ(end.cause, kPeerDied);
    EXPECT_EQ(end.reports, r == 0);
  }
}

TEST(R09_Watchdog, TheOthersNoticeThatRank0IsKilled) {
  RankProcesses ranks(3, patient_options(), trouble_in_step_17(0, [](auto&) { ::raise(SIGKILL); }));
  for (const int r : {1, 2}) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kPeerDied);
    // It may die while the others are still about to leave the collective of step 16.
    const auto noticed_in = [&](int step) {
      return fmt::format(
          "{} died (connection closed) when rank {} was in step {}, in the phase step",
          ranks.name(0), r, step);
    };
    EXPECT_TRUE(end.what == noticed_in(16) || end.what == noticed_in(17)) << end.what;
    EXPECT_EQ(end.reports, r == 1);
  }
}

TEST(R09_Watchdog, AnExitWithoutGoodbyeIsADeath) {
  RankProcesses ranks(3, patient_options(), trouble_in_step_17(1, [](auto&) { ::_exit(0); }));
  for (const int r : {0, 2}) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kPeerDied);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, ranks.name(1) + " died", end.what);
  }
}

TEST(R09_Watchdog, TheOthersLearnTheErrorOfARank) {
  for (const int source : {0, 1}) {
    RankProcesses ranks(3, patient_options(), trouble_in_step_17(source, [](auto&) {
                          throw Error(ExitCode::kDisk, "x.h5: no space left\n  on the disk");
                        }));
    for (int r = 0; r < 3; ++r) {
      const RankEnd end = ranks.wait(r);
      EXPECT_EQ(end.reports, r == 0);
      if (r == source) {
        EXPECT_EQ(end.code, 23);
        continue;
      }
      EXPECT_EQ(end.code, kPeerDied);
      EXPECT_EQ(end.cause, 23);
      EXPECT_EQ(end.what,
                "rank " + std::to_string(source) + " ended with code 23: x.h5: no space left");
    }
  }
}

// What failed collectives throw where a world notices a death before the watchdog does.
TEST(R09_Watchdog, TheDeathIsToldAndNotWhatItDidToCollectives) {
  RankProcesses ranks(3, patient_options(), [](RankContext& rank) {
    two_good_steps(rank);
    if (rank.rank() == 1) throw Error(ExitCode::kPeerDied, "a message was cut off");
    if (rank.rank() == 2) {
      sleep_s(0.05);
      ::raise(SIGKILL);
    }
    rank.collective(17);
  });
  for (const int r : {0, 1}) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kPeerDied);
    EXPECT_EQ(end.cause, kPeerDied);
    EXPECT_PRED_FORMAT2(testing::IsSubstring,
                        r == 0 ? ranks.name(2) + " died" : "a message was cut off", end.what);
  }
}

TEST(R10_Watchdog, AStoppedRankIsNamed) {
  RankProcesses ranks(3, fast_options(), trouble_in_step_17(2, [](auto&) { ::raise(SIGSTOP); }));
  for (const int r : {0, 1}) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kHang);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, ranks.name(2) + " hangs: it does not answer",
                        end.what);
    EXPECT_PRED_FORMAT2(testing::IsSubstring,
                        "last heard of in step 17, in the phase step; ranks 0 and 1 wait "
                        "in reduce_scatter 17 of world (4096 bytes, bf16)",
                        end.what);
    if (r == 0) {
      EXPECT_PRED_FORMAT2(testing::IsSubstring, "inside, entered", end.stderr_text);
    }
  }
  ranks.signal(2, SIGCONT);
  EXPECT_EQ(ranks.wait(2).code, kHang) << "once it runs again, it learns of the verdict";
}

TEST(R10_Watchdog, TheOthersNoticeThatRank0IsStopped) {
  RankProcesses ranks(3, fast_options(), trouble_in_step_17(0, [](auto&) { ::raise(SIGSTOP); }));
  for (const int r : {1, 2}) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kHang);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, ranks.name(0) + " hangs: it does not answer",
                        end.what);
    EXPECT_EQ(end.reports, r == 1);
  }
  ranks.signal(0, SIGCONT);
  EXPECT_EQ(ranks.wait(0).code, kHang);
}

// The main thread of the suspect is stuck for good, and ended all the same.
TEST(R10_Watchdog, ARankHeldBackBeforeACollectiveIsNamedAndEnded) {
  for (const int suspect : {0, 1}) {
    RankProcesses ranks(3, fast_options(),
                        trouble_in_step_17(suspect, [](auto&) { sleep_s(1000); }));
    for (int r = 0; r < 3; ++r) {
      const RankEnd end = ranks.wait(r);
      EXPECT_TRUE(end.ended);
      EXPECT_EQ(end.code, kHang);
      EXPECT_EQ(ranks.had_last_words(r), r == suspect);
      const std::string cause = ranks.name(suspect) + " hangs in step 17, in the phase step";
      if (r != suspect) {
        EXPECT_PRED_FORMAT2(testing::IsSubstring, cause, end.what);
        EXPECT_PRED_FORMAT2(testing::IsSubstring,
                            "it has not entered reduce_scatter 17 of world (4096 bytes, "
                            "bf16); its last one there was number 16",
                            end.what);
      }
      if (r == 0) {
        EXPECT_PRED_FORMAT2(testing::IsSubstring, "reduce_scatter 16 of world", end.stderr_text);
      }
      const bool ended_here = r == 0 && suspect == 0;  // by the thread, with the one line
      EXPECT_EQ(end.stderr_text.find("error: " + cause) != std::string::npos, ended_here);
    }
  }
}

TEST(R10_Watchdog, ARankThatComputesForeverIsNamed) {
  RankProcesses ranks(3, fast_options(), [](RankContext& rank) {
    rank.watch().enter_phase(rank.rank() == 1 ? Phase::kEvaluation : Phase::kStart, 3);
    while (true) {
      sleep_s(0.01);
      rank.watch().check();
    }
  });
  for (int r = 0; r < 3; ++r) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kHang);
    EXPECT_PRED_FORMAT2(testing::IsSubstring,
                        ranks.name(1) + " hangs in step 3, in the phase evaluation", end.what);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, "outside of collectives", end.what);
  }
}

TEST(R10_Watchdog, NoFalseAlarmBelowTheLimit) {
  parallel::WatchdogOptions options = patient_options();
  options.limits.first_step_s = options.limits.step_s = 15;
  options.limits.save_s = 15;
  RankProcesses ranks(3, options, [](RankContext& rank) {
    two_good_steps(rank);
    rank.watch().enter_phase(Phase::kStep, 17);
    if (rank.rank() == 1) sleep_s(3);
    rank.collective(17);
    rank.watch().enter_phase(Phase::kSave, 17);
    if (rank.rank() == 0) ::raise(SIGSTOP);
    rank.collective(18);
  });
  ASSERT_TRUE(ranks.wait_until_stopped(0));
  sleep_s(2);
  ranks.signal(0, SIGCONT);
  for (int r = 0; r < 3; ++r) EXPECT_EQ(ranks.wait(r).code, 0);
}

// As schedulers do it: for longer than any limit, and not for all at the same moment.
TEST(R10_Watchdog, ASuspendedJobGoesOn) {
  parallel::WatchdogOptions options = patient_options();
  options.limits.first_step_s = options.limits.step_s = 4;
  RankProcesses ranks(3, options, [](RankContext& rank) {
    two_good_steps(rank);
    rank.watch().enter_phase(Phase::kStep, 17);
    if (rank.rank() == 2) {
      sleep_s(0.2);
      rank.mark(0);
      sleep_s(0.5);
    }
    rank.collective(17);
    rank.watch().enter_phase(Phase::kStep, 18);
  });
  for (int i = 0; i < 3000 && !ranks.marked(0); ++i) sleep_s(0.01);
  for (const int r : {1, 0, 2}) ranks.signal(r, SIGSTOP);
  for (const int r : {1, 0, 2}) EXPECT_TRUE(ranks.wait_until_stopped(r));
  sleep_s(8);
  for (const int r : {0, 2, 1}) {
    ranks.signal(r, SIGCONT);
    sleep_s(0.2);
  }
  for (int r = 0; r < 3; ++r) EXPECT_EQ(ranks.wait(r).code, 0);
}

TEST(R09_Watchdog, ARankThatLeavesEarlyIsNamed) {
  parallel::WatchdogOptions options = patient_options();
  options.limits.end_s = 1;
  RankProcesses ranks(3, options, trouble_in_step_17(1, [](RankContext& rank) {
                        rank.watch().goodbye();  // the others are in a collective
                        rank.mark(0);
                      }));
  for (int r = 0; r < 3; ++r) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kPeerDied);
    EXPECT_EQ(end.what, ranks.name(1) +
                            " ended early in step 17, in the phase end, while rank 0 was in step "
                            "17, in the phase step");
  }
  EXPECT_FALSE(ranks.marked(0)) << "goodbye() returned although the run went on";
}

TEST(R09_Watchdog, ARankThatDiesWhileOthersWaitForTheEndIsNamed) {
  RankProcesses ranks(3, patient_options(), [](RankContext& rank) {
    two_good_steps(rank);
    if (rank.rank() == 2) {
      sleep_s(0.2);
      ::raise(SIGSEGV);
    }
  });
  for (const int r : {0, 1}) {
    const RankEnd end = ranks.wait(r);
    EXPECT_EQ(end.code, kPeerDied);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, ranks.name(2) + " died", end.what);
  }
}

}  // namespace
}  // namespace qstep::test
