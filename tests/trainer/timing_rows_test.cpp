// The rows of a rank: sums of what its timeline noted, dropped and kept as steps are.
#include "trainer/run/timing_rows.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "tests/trainer/checkpoint_testing.h"
#include "tests/trainer/run_records.h"
#include "tests/trainer/step_testing.h"
#include "trainer/timing/breakdown.h"

namespace qstep::trainer::testing {
namespace {

using Json = nlohmann::json;

Config small_config(TimingLevel level) {
  Config c = step_config(tiny_model(), 2, 8);
  set_recipe(c, "bf16");
  c.timing.level = level;
  return c;
}

parallel::CollectiveRecord record_of(std::string_view group, uint64_t sequence) {
  return {.group = group, .sequence = sequence, .operation = "all_gather", .bytes = 100};
}

class TimingFile : public ::testing::Test {
 protected:
  TimingRows open(int64_t last_step) const {
    return TimingRows(path_, last_step, 0, {{"world", {"data"}}, {"world/1:0", {"tensor"}}}, false);
  }
  std::vector<Json> rows(const std::string& type) const { return rows_of(path_, type); }

  TemporaryFolder folder_;
  std::string path_ = timing_rows_path(folder_ / "", 0);
};

double sum_of(const std::vector<Json>& rows, const std::string& key) {
  double sum = 0;
  for (const Json& row : rows) sum += row.at(key).get<double>();
  return sum;
}

// Phase rows add up to the breakdowns but for the gaps; GEMM rows have the FLOPs of the model.
TEST_F(TimingFile, SumsStepsOfATrainer) {
  const Config c = small_config(TimingLevel::kOps);
  const auto ops = ops::make_cpu_ops();
  Trainer trainer(*ops, c);
  FixedBatches batches({random_batch(c.model, 2, 8, 71)});
  double calls_ms = 0;
  {
    TimingRows file = open(0);
    for (int64_t step = 1; step <= 3; ++step) {
      const StepResult result = trainer.step(batches, 1e-3, step);
      const Breakdown& ms = *result.breakdown_ms;
      calls_ms +=
          std::accumulate(ms.begin(), ms.end(), 0.0) - ms[static_cast<size_t>(Category::kHostGap)];
      file.add(step, trainer.timeline(), {});
    }
    file.write();
    file.write();  // nothing new
  }
  const std::vector<Json> phases = rows("phase"), gemms = rows("gemm");
  EXPECT_NEAR(calls_ms, sum_of(phases, "ms"), 1e-6);
  for (const Json& row : phases) {
    EXPECT_EQ(3, row.at("steps"));
    EXPECT_EQ(3, row.at("step"));
  }
  double flops = 0;
  for (const Json& row : gemms) {
    EXPECT_EQ(3, row.at("calls")) << row;
    EXPECT_EQ("bf16", row.at("format_a"));
    const double one =
        2.0 * row.at("m").get<double>() * row.at("n").get<double>() * row.at("k").get<double>() * 3;
    EXPECT_NEAR(one / (row.at("ms").get<double>() * 1e9), row.at("tflops").get<double>(),
                1e-9 * row.at("tflops").get<double>());
    flops += one;
  }
  double expected = 6.0 * static_cast<double>(c.model.padded_vocab() * c.model.width);
  for (int64_t module = 0; module < n_modules(c.model); ++module) {
    const LinearShape shape = linear_shape(c.model, module);
    expected += 6.0 * static_cast<double>(shape.out * shape.in);
  }
  EXPECT_EQ(expected * 2 * 8 * 3, flops);
  EXPECT_EQ(static_cast<size_t>(3 * (n_modules(c.model) + 1)), gemms.size());
}

TEST_F(TimingFile, AResumedRunWritesItsStepsOnce) {
  Timeline timeline(TimingLevel::kPhases);
  const auto write = [&](int64_t first, int64_t last) {
    TimingRows file = open(first - 1);
    const std::vector<MemoryRow> memory{{"weights", 7}};
    file.run({.first_step = first, .host = "a \"host\""}, memory);
    for (int64_t step = first; step <= last; ++step) {
      timeline.start();
      timeline.wait(Category::kDataWait, [] {});
      timeline.stop();
      file.add(step, timeline, {});
      file.write();
    }
  };
  write(1, 4);
  write(3, 5);  // from a checkpoint behind step 2
  std::vector<int64_t> steps;
  for (const Json& row : rows("phase")) {
    EXPECT_EQ("data_wait", row.at("phase"));
    steps.push_back(row.at("step"));
  }
  EXPECT_EQ((std::vector<int64_t>{1, 2, 3, 4, 5}), steps);
  ASSERT_EQ(2u, rows("rank_run").size());
  EXPECT_EQ("a \"host\"", rows("rank_run")[1].at("host"));
  EXPECT_EQ(7, rows("memory").at(0).at("bytes"));
}

TEST_F(TimingFile, FilesOfRanksThatAreGoneLoseLaterSteps) {
  for (int rank = 0; rank < 3; ++rank) {
    JsonLines lines(timing_rows_path(folder_ / "", rank));
    for (int64_t step = 1; step <= 4; ++step) {
      lines.open("phase", step);
      lines.append();
    }
  }
  drop_timing_rows(folder_ / "", 1, 2);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(rank == 0 ? 4u : 2u, rows_of(timing_rows_path(folder_ / "", rank), "phase").size());
  }
}

// Parts of a collective count in the step that they lie in; it counts itself where it ends.
TEST_F(TimingFile, CollectivesByGroup) {
  TimingRows file = open(0);
  CollectiveTimes heard(nullptr);
  Timeline timeline(TimingLevel::kPhases);
  TimeRange first, second;
  timeline.start();
  heard.entered(record_of("world", 1));
  heard.entered(record_of("world/1:0", 1));
  timeline.wait(Category::kTpComm, [&] { heard.left(record_of("world/1:0", 1)); });
  timeline.stop();
  first = timeline.step();
  const std::vector<CollectiveTime> in_first = heard.take(first);
  ASSERT_EQ(2u, in_first.size());
  EXPECT_FALSE(in_first[0].ended);
  EXPECT_EQ(first.end, in_first[0].when.end);
  EXPECT_TRUE(in_first[1].ended);
  file.add(1, timeline, in_first);

  // Between the steps: counted, but no part of their time.
  heard.entered(record_of("world/1:0", 2));
  heard.left(record_of("world/1:0", 2));
  timeline.start();
  heard.left(record_of("world", 1));
  heard.entered(record_of("elsewhere", 1));
  heard.left(record_of("elsewhere", 1));
  timeline.stop();
  second = timeline.step();
  const std::vector<CollectiveTime> in_second = heard.take(second);
  ASSERT_EQ(3u, in_second.size());
  EXPECT_EQ(second.begin, in_second[0].when.begin);
  EXPECT_TRUE(in_second[0].ended);
  EXPECT_EQ(0, in_second[1].when.length());
  file.add(2, timeline, in_second);
  EXPECT_TRUE(heard.take({second.end, second.end + 1}).empty());
  file.write();

  const std::vector<Json> comm = rows("comm");
  ASSERT_EQ(2u, comm.size());  // nobody knows the group "elsewhere"
  EXPECT_EQ("data", comm[0].at("group"));
  EXPECT_EQ("tensor", comm[1].at("group"));
  for (size_t i = 0; i < comm.size(); ++i) {
    const Json& row = comm[i];
    EXPECT_EQ(i + 1, row.at("calls"));
    EXPECT_EQ(100 * (i + 1), row.at("bytes"));
    EXPECT_LE(row.at("exposed_ms").get<double>(), row.at("total_ms").get<double>());
  }
  const auto ms = [](const TimeRange& x) { return static_cast<double>(x.length()) * 1e-6; };
  EXPECT_NEAR(ms(in_first[0].when) + ms(in_second[0].when), comm[0].at("total_ms"), 1e-9);
}

// Two waits with collectives, of which one was under way before and after; one without; and one for
// a batch.
TEST(CollectiveTimes, WakingBelongsToWhatIsWaitedFor) {
  const auto span = [](Category category, int64_t begin, int64_t end) {
    TimeSpan s;
    s.category = category;
    s.when = {begin, end};
    return s;
  };
  const auto collective = [](int64_t begin, int64_t end) {
    CollectiveTime c;
    c.when = {begin, end};
    return c;
  };
  const std::vector<TimeSpan> spans{
      span(Category::kAttn, 0, 10),  span(Category::kTpComm, 10, 20),
      span(Category::kAttn, 20, 30), span(Category::kGradReduce, 30, 40),
      span(Category::kAttn, 40, 50), span(Category::kParamGather, 50, 60),
      span(Category::kAttn, 60, 80), span(Category::kDataWait, 80, 90)};
  const std::vector<CollectiveTime> collectives{collective(12, 15), collective(15, 18),
                                                collective(45, 70), collective(82, 85)};
  const std::vector<TimeRange> times = with_waking(collectives, spans);
  EXPECT_EQ((std::vector<TimeRange>{{10, 15}, {15, 20}, {45, 70}, {82, 85}}), times);
  // What of them is exposed is what was waited, but for the wait without a collective and for the
  // collective beside the wait for a batch.
  EXPECT_EQ((std::vector<double>{5, 5, 10, 3}), exposed(times, going(spans, {0, 90})));
}

// A GPU's host hears of a collective when it looks, long after it ran.
TEST(CollectiveTimes, AreThoseOfTheDeviceWhereItsWorldKnowsThem) {
  CollectiveTimes heard(nullptr);
  const int64_t now = Timeline::now_ns();
  parallel::CollectiveRecord record = record_of("gpus", 1);
  heard.entered(record);
  record.begin_ns = now - 3000;
  record.end_ns = now - 1000;
  heard.left(record);
  const std::vector<CollectiveTime> found = heard.take({now - 2000, now});
  ASSERT_EQ(1u, found.size());
  EXPECT_TRUE(found[0].ended);
  EXPECT_EQ((TimeRange{now - 2000, now - 1000}), found[0].when);
}

TEST(CollectiveTimes, HandsOnWhatItHears) {
  class Next final : public parallel::CollectiveObserver {
   public:
    void entered(const parallel::CollectiveRecord&) override { ++n_entered; }
    void left(const parallel::CollectiveRecord&) override { ++n_left; }
    std::optional<parallel::Failure> failure() override {
      return parallel::Failure{ops::ExitCode::kHang, "stuck"};
    }
    int n_entered = 0, n_left = 0;
  } next;
  CollectiveTimes heard(&next);
  heard.entered(record_of("world", 1));
  heard.entered(record_of("world", 2));
  heard.left(record_of("world", 1));
  EXPECT_EQ(2, next.n_entered);
  EXPECT_EQ(1, next.n_left);
  EXPECT_EQ("stuck", heard.failure().value().text);
  EXPECT_FALSE(CollectiveTimes(nullptr).failure().has_value());
}

}  // namespace
}  // namespace qstep::trainer::testing
