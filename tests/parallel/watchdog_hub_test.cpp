#include "parallel/watchdog_hub.h"

#include <gtest/gtest.h>

namespace qstep::parallel {
namespace {

using ops::ExitCode;

const std::vector<Peer> kPeers = {{"a", 1}, {"a", 2}, {"b", 3}};

Standing in(Phase phase, double in_phase_s = 0) {
  return {.phase = phase, .step = 5, .in_phase_s = in_phase_s, .limit_s = 60, .collectives = {}};
}

// All ranks in a step since second 0, with a limit of 60 s, and 5 s to answer.
WatchdogHub hub() {
  WatchdogHub hub(kPeers, in(Phase::kStart), 5, 0);
  for (int r = 0; r < 3; ++r) hub.heard(r, in(Phase::kStep), 0);
  return hub;
}

TEST(R09_Hub, AClosedConnectionIsADeath) {
  WatchdogHub h = hub();
  const auto verdict = h.closed(1, "connection closed");
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->text,
            "rank 1 (a, pid 2) died (connection closed) in step 5, in the phase step");
  EXPECT_EQ(h.dead(), (std::vector{false, true, false}));
}

TEST(R09_Hub, AfterAFarewellItIsNot) {
  WatchdogHub h = hub();
  EXPECT_EQ(h.farewell(1, ExitCode::kData, "bad token", 1)->text,
            "rank 1 ended with code 21: bad token");
  EXPECT_FALSE(h.closed(1, "connection closed"));
  EXPECT_EQ(h.dead(), (std::vector{false, false, false}));
}

TEST(R09_Hub, ASymptomGivesACauseTime) {
  WatchdogHub h = hub();
  EXPECT_FALSE(h.farewell(1, ExitCode::kPeerDied, "a message was cut off", 10));
  EXPECT_FALSE(h.farewell(0, ExitCode::kHang, "no progress", 10.5));
  EXPECT_FALSE(h.tick(10.9));
  const auto verdict = h.tick(11.1);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->text, "rank 1 ended with code 40: a message was cut off");
  EXPECT_FALSE(h.tick(12)) << "told twice";
}

TEST(R10_Hub, ALimitAsksAllOnceAndWaitsForTheirAnswers) {
  WatchdogHub h = hub();
  h.heard(0, in(Phase::kStep), 30);
  EXPECT_FALSE(h.tick(60));
  EXPECT_FALSE(h.take_query());
  EXPECT_FALSE(h.tick(60.1)) << "ranks 1 and 2 are over";
  EXPECT_TRUE(h.take_query());
  EXPECT_FALSE(h.take_query());
  for (const int r : {0, 2}) h.answered(r, in(Phase::kStep, 60.1), 60.2);
  EXPECT_FALSE(h.tick(65));
  EXPECT_FALSE(h.take_query());
  const auto verdict = h.tick(65.2);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->code, ExitCode::kHang);
  EXPECT_EQ(verdict->rank, 1) << "which did not answer";
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "as last heard: no answer", h.table(65.2));
}

TEST(R10_Hub, TheLastAnswerEndsTheWait) {
  WatchdogHub h = hub();
  EXPECT_FALSE(h.tick(61));
  for (int r = 0; r < 3; ++r) h.answered(r, in(Phase::kStep, 61.0 + r), 61.5);
  const auto verdict = h.tick(61.5);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->rank, 2) << "the furthest over its limit";
}

TEST(R10_Hub, ProgressDuringTheInquiryEndsIt) {
  WatchdogHub h = hub();
  EXPECT_FALSE(h.tick(61));
  EXPECT_TRUE(h.take_query());
  for (int r = 0; r < 3; ++r) h.answered(r, in(Phase::kStep), 61.5);
  EXPECT_FALSE(h.tick(61.5));
  EXPECT_FALSE(h.tick(121));
  EXPECT_FALSE(h.take_query());
  EXPECT_FALSE(h.tick(121.6));
  EXPECT_TRUE(h.take_query()) << "the next hang is found, too";
}

// Ranks 0 and 1 wait for rank 2, whose process was stopped for a while: it has its whole limit.
TEST(R10_Hub, WhoIsWithinItsOwnLimitIsGivenTheRestOfIt) {
  WatchdogHub h = hub();
  const auto waiting = [](double in_phase_s) {
    Standing s = in(Phase::kStep, in_phase_s);
    s.collectives.push_back({.group = "world", .sequence = 7, .operation = "barrier"});
    s.collectives.back().inside = true;
    return s;
  };
  const auto ask = [&](double now_s, double of_rank_2_s) {
    h.tick(now_s);
    EXPECT_TRUE(h.take_query());
    for (const int r : {0, 1}) h.answered(r, waiting(now_s), now_s);
    h.answered(2, in(Phase::kStep, of_rank_2_s), now_s);
    return h.tick(now_s);
  };
  EXPECT_FALSE(ask(61, 31));
  EXPECT_FALSE(h.tick(65.9));
  EXPECT_FALSE(h.take_query()) << "asked again at once";
  // Often enough for the others to hear of a rank 0 that lives.
  EXPECT_FALSE(ask(66.1, 36.1));
  EXPECT_FALSE(ask(89, 59));
  EXPECT_FALSE(h.tick(89.9));
  const auto verdict = ask(90.1, 60.1);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->rank, 2);
}

// As it would be with a process that is stopped for good.
TEST(R10_Hub, WhoDoesNotAnswerIsGivenNoRest) {
  WatchdogHub h = hub();
  h.heard(2, in(Phase::kStep, 31), 61);
  EXPECT_FALSE(h.tick(61));
  for (const int r : {0, 1}) h.answered(r, in(Phase::kStep, 61), 61);
  const auto verdict = h.tick(66.1);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->rank, 2);
}

TEST(R10_Hub, TheTimeInWhichRank0StoodStillCountsForNobody) {
  WatchdogHub h = hub();
  h.pause(1000);
  EXPECT_FALSE(h.tick(1059));
  EXPECT_FALSE(h.take_query());
  h.tick(1061);
  EXPECT_TRUE(h.take_query());
}

TEST(R09_Hub, TheEndIsOverWhenAllSaidGoodbye) {
  WatchdogHub h = hub();
  h.heard(0, in(Phase::kEnd), 10);
  h.heard(2, in(Phase::kEnd), 10);
  EXPECT_FALSE(h.all_said_goodbye());
  h.heard(1, in(Phase::kEnd), 69);
  EXPECT_TRUE(h.all_said_goodbye());
  EXPECT_FALSE(h.tick(100));
  EXPECT_FALSE(h.take_query());
}

}  // namespace
}  // namespace qstep::parallel
