#include "parallel/hang.h"

#include <gtest/gtest.h>

namespace qstep::parallel {
namespace {

using ops::ExitCode;

LoggedCollective collective(const std::string& group, uint64_t sequence, bool inside,
                            int peer = -1) {
  return {.group = group,
          .sequence = sequence,
          .operation = peer < 0 ? "all_reduce" : "receive",
          .bytes = 64,
          .dtype = ops::Dtype::kF32,
          .peer = peer,
          .inside = inside,
          .age_s = 61};
}

LoggedCollective left(const std::string& group, uint64_t sequence) {
  return collective(group, sequence, false);
}
LoggedCollective inside(const std::string& group, uint64_t sequence) {
  return collective(group, sequence, true);
}

// In step 17 for 61 s, one above the limit.
RankReport rank(std::vector<LoggedCollective> collectives) {
  return {.peer = {.host = "h", .pid = 100},
          .answered = true,
          .standing = {.phase = Phase::kStep,
                       .step = 17,
                       .in_phase_s = 61,
                       .limit_s = 60,
                       .collectives = std::move(collectives)}};
}

RankReport silent(RankReport report) {
  report.answered = false;
  return report;
}

RankReport in_phase(Phase phase, double in_phase_s, RankReport report) {
  report.standing.phase = phase;
  report.standing.in_phase_s = in_phase_s;
  return report;
}

void expect_hang(const std::vector<RankReport>& reports, int suspect, const std::string& text) {
  const Verdict verdict = judge_hang(reports);
  EXPECT_EQ(verdict.code, ExitCode::kHang);
  EXPECT_EQ(verdict.rank, suspect);
  EXPECT_EQ(verdict.text, text);
}

TEST(R10_Hang, TheRankThatHasNotEnteredIsTheSuspect) {
  expect_hang({rank({inside("world", 57)}), rank({inside("world", 57)}), rank({left("world", 56)}),
               rank({inside("world", 57)})},
              2,
              "rank 2 (h, pid 100) hangs in step 17, in the phase step, for 61.0 s (limit 60.0 s): "
              "it has not entered all_reduce 57 of world (64 bytes, fp32); its last one there was "
              "number 56; ranks 0, 1 and 3 wait in all_reduce 57 of world (64 bytes, fp32)");
}

TEST(R10_Hang, ARankWithoutAnyCollectiveIsAMemberOfTheWorld) {
  const Verdict verdict = judge_hang(std::vector{rank({}), rank({inside("world", 1)})});
  EXPECT_EQ(verdict.rank, 0);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "its last one there was none so far", verdict.text);
}

TEST(R10_Hang, OfSeveralTheLowestNumberIsTheSuspect) {
  EXPECT_EQ(judge_hang(std::vector{rank({inside("world", 9)}), rank({left("world", 8)}),
                                   rank({left("world", 5)}), rank({left("world", 8)})})
                .rank,
            2);
}

// Rank 1 is behind in one group because rank 2 is missing in the other.
TEST(R10_Hang, WhoWaitsItselfIsNotBlamed) {
  EXPECT_EQ(judge_hang(std::vector{rank({inside("world/1:0", 4), left("world", 3)}),
                                   rank({left("world/1:0", 2), inside("world/2:0", 9)}),
                                   rank({left("world/2:0", 8)})})
                .rank,
            2);
}

// A group that a rank is not in says nothing about it.
TEST(R10_Hang, StrangersToAGroupAreNotBlamed) {
  EXPECT_EQ(judge_hang(std::vector{rank({left("world", 3)}),
                                   rank({left("world", 3), inside("world/1:1", 5)}),
                                   rank({left("world", 3), left("world/1:1", 4)})})
                .rank,
            2);
}

TEST(R10_Hang, ASilentRankIsTheSuspect) {
  expect_hang(
      {rank({inside("world", 57)}), rank({left("world", 50)}), silent(rank({}))}, 2,
      "rank 2 (h, pid 100) hangs: it does not answer, so the process is stopped or its host "
      "is gone; last heard of in step 17, in the phase step; rank 0 waits in all_reduce 57 "
      "of world (64 bytes, fp32)");
  const Verdict two = judge_hang(std::vector{silent(rank({})), rank({}), silent(rank({}))});
  EXPECT_EQ(two.rank, 0);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "; ranks 0 and 2 do not answer", two.text);
}

TEST(R10_Hang, DifferentCollectivesUnderOneNumberAreTold) {
  LoggedCollective other = inside("world", 57);
  other.bytes = 128;
  expect_hang({rank({inside("world", 57)}), rank({other})}, -1,
              "ranks hang in different collectives under one number: rank 0 in all_reduce 57 of "
              "world (64 bytes, fp32), rank 1 in all_reduce 57 of world (128 bytes, fp32)");
}

TEST(R10_Hang, TheRankOutsideIsTheSuspect) {
  const RankReport computes = in_phase(Phase::kEvaluation, 70, rank({left("world", 57)}));
  expect_hang({rank({left("world", 57)}), computes}, 1,
              "rank 1 (h, pid 100) hangs in step 17, in the phase evaluation, for 70.0 s (limit "
              "60.0 s), outside of collectives");
  // Waited for by a receive, of which nobody knows the other end; its own clock is not over yet.
  const RankReport early = in_phase(Phase::kStep, 59, rank({left("world", 57)}));
  expect_hang({rank({left("world", 57), collective("world", 3, true, 1)}), early}, 1,
              "rank 1 (h, pid 100) hangs in step 17, in the phase step, for 59.0 s (limit 60.0 s), "
              "outside of collectives; rank 0 waits in receive 3 of world (64 bytes, fp32)");
}

TEST(R10_Hang, NobodyIsBlamedWhenAllWait) {
  expect_hang({rank({inside("world", 57)}), rank({inside("world", 57)})}, -1,
              "all ranks hang in collectives that all have entered, so what carries their messages "
              "is stuck: ranks 0 and 1 wait in all_reduce 57 of world (64 bytes, fp32)");
}

TEST(R09_Hang, ASuspectThatSaidGoodbyeEndedEarly) {
  const RankReport gone = in_phase(Phase::kEnd, 61, rank({left("world", 56)}));
  for (const auto& other : {rank({inside("world", 57)}), in_phase(Phase::kStep, 1, rank({}))}) {
    const Verdict verdict = judge_hang(std::vector{other, gone});
    EXPECT_EQ(verdict.code, ExitCode::kPeerDied);
    EXPECT_EQ(verdict.rank, 1);
    EXPECT_EQ(verdict.text,
              "rank 1 (h, pid 100) ended early in step 17, in the phase end, while rank 0 was in "
              "step 17, in the phase step");
  }
}

TEST(R10_Hang, WhoKeepsOthersFromTheEndIsTheSuspect) {
  const RankReport gone = in_phase(Phase::kEnd, 61, rank({left("world", 57)}));
  const Verdict verdict = judge_hang(std::vector{gone, in_phase(Phase::kSave, 90, rank({}))});
  EXPECT_EQ(verdict.code, ExitCode::kHang);
  EXPECT_EQ(verdict.rank, 1);
}

TEST(R10_Hang, ATableTellsWhoEnteredWhat) {
  EXPECT_EQ(collective_table(std::vector{rank({left("world", 56), inside("world", 57)}),
                                         silent(rank({left("world", 56)})), rank({})}),
            " rank  host                      pid  phase           step        s  collective\n"
            "    0  h                         100  step              17     61.0  all_reduce 56 of "
            "world (64 bytes, fp32): left, entered 61.0 s ago\n"
            "    0  h                         100  step              17     61.0  all_reduce 57 of "
            "world (64 bytes, fp32): inside, entered 61.0 s ago\n"
            "    1  h                         100  step              17     61.0  all_reduce 56 of "
            "world (64 bytes, fp32): left, entered 61.0 s ago, as last heard: no answer\n"
            "    2  h                         100  step              17     61.0  none\n");
}

}  // namespace
}  // namespace qstep::parallel
