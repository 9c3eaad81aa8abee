#include "parallel/collective_log.h"

#include <gtest/gtest.h>

#include <thread>

namespace qstep::parallel {
namespace {

CollectiveRecord record(std::string_view group, uint64_t sequence, int peer = -1) {
  return {.group = group,
          .sequence = sequence,
          .operation = peer < 0 ? "all_reduce" : "send",
          .bytes = 8,
          .dtype = ops::Dtype::kF32,
          .peer = peer};
}

void run(CollectiveLog& log, const CollectiveRecord& of) {
  log.entered(of);
  log.left(of);
}

// "world 3" and "world 3 inside", joined.
std::string text(const std::vector<LoggedCollective>& collectives) {
  std::string all;
  for (const LoggedCollective& c : collectives) {
    all += fmt::format("{}{} {}{}", all.empty() ? "" : ", ", c.group, c.sequence,
                       c.inside ? " inside" : "");
  }
  return all;
}

TEST(CollectiveLog, KeepsTheLastOnes) {
  CollectiveLog log(4);
  EXPECT_EQ(text(log.recent(3)), "");
  for (uint64_t s = 1; s <= 9; ++s) run(log, record("world", s));
  log.entered(record("world", 10));
  EXPECT_EQ(text(log.recent(0)), "world 10 inside");
  EXPECT_EQ(text(log.recent(3)), "world 8, world 9, world 10 inside");
  EXPECT_EQ(text(log.recent(100)), "world 7, world 8, world 9, world 10 inside");
  log.left(record("world", 10));
  EXPECT_EQ(text(log.recent(1)), "world 10");
}

TEST(CollectiveLog, KeepsTheLastOneOfEveryGroup) {
  CollectiveLog log(4);
  run(log, record("world", 1));
  for (uint64_t s = 1; s <= 9; ++s) run(log, record("world/1:0", s));
  EXPECT_EQ(text(log.recent(0)), "world 1, world/1:0 9");
  log.entered(record("world", 2));
  EXPECT_EQ(text(log.recent(2)), "world/1:0 9, world 2 inside");
}

TEST(CollectiveLog, SendsAndReceivesPassEachOther) {
  CollectiveLog log(8);
  run(log, record("world", 5));
  log.entered(record("world", 1, 3));
  log.entered(record("world", 2, 3));
  log.left(record("world", 2, 3));
  EXPECT_EQ(text(log.recent(0)), "world 5, world 1 inside, world 2");
  log.left(record("world", 1, 3));
  EXPECT_EQ(text(log.recent(0)), "world 5, world 2");
}

TEST(CollectiveLog, KeepsAllOfARecordAndItsAge) {
  CollectiveLog log;
  log.entered(record("world", 7, 2));
  const LoggedCollective c = log.recent(1).at(0);
  EXPECT_EQ(c.operation, "send");
  EXPECT_EQ(c.bytes, 8);
  EXPECT_EQ(c.dtype, ops::Dtype::kF32);
  EXPECT_EQ(c.peer, 2);
  EXPECT_GE(c.age_s, 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_GE(log.recent(1).at(0).age_s, c.age_s + 0.002);
}

TEST(CollectiveLog, IsReadWhileItIsWritten) {
  CollectiveLog log(16);
  const uint64_t before = log.version();
  std::jthread writer([&] {
    for (uint64_t s = 1; s <= 2000; ++s) run(log, record("world", s));
  });
  uint64_t last = 0;
  while (last < 2000) {
    for (const LoggedCollective& c : log.recent(4)) {
      EXPECT_GE(c.sequence + 4, last);
      last = std::max(last, c.sequence);
    }
  }
  writer.join();
  EXPECT_EQ(log.version(), before + 4000);
}

}  // namespace
}  // namespace qstep::parallel
