// Breakdowns of made-up steps, against counting on a grid of single nanoseconds.
#include "trainer/timing/breakdown.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/support/compare.h"
#include "trainer/timing/collective_times.h"

namespace qstep::trainer::testing {
namespace {

TimeSpan span_of(Category category, TimeRange when, int64_t waited_ns = 0) {
  TimeSpan span;
  span.category = category;
  span.when = when;
  span.waited_ns = waited_ns;
  return span;
}

double ns_of(const Breakdown& ms, Category category) {
  return ms[static_cast<size_t>(category)] * 1e6;
}

TEST(Breakdown, ByHand) {
  // 10..14 nothing runs; the quantizer waits twice.
  const std::vector<TimeSpan> spans{
      span_of(Category::kDataWait, {0, 10}), span_of(Category::kTpComm, {16, 18}),
      span_of(Category::kTpComm, {20, 23}), span_of(Category::kQuant, {14, 24}, 5),
      span_of(Category::kAttn, {24, 30})};
  const Breakdown ms = breakdown(spans, {0, 32});
  EXPECT_NEAR(10, ns_of(ms, Category::kDataWait), 1e-9);
  EXPECT_NEAR(5, ns_of(ms, Category::kTpComm), 1e-9);
  EXPECT_NEAR(5, ns_of(ms, Category::kQuant), 1e-9);
  EXPECT_NEAR(6, ns_of(ms, Category::kAttn), 1e-9);
  EXPECT_NEAR(6, ns_of(ms, Category::kHostGap), 1e-9);
  EXPECT_EQ((std::vector<TimeRange>{{10, 16}, {18, 20}, {23, 32}}), going(spans, {0, 32}));
}

TEST(Breakdown, FormatsHaveTheirOwnGemms) {
  EXPECT_EQ("gemm_bf16", category_name(Category::kGemmBf16));
  for (int i = 0; i <= static_cast<int>(GemmFormat::kFp8E5m2); ++i) {
    const auto category = static_cast<Category>(static_cast<int>(Category::kGemmFp32) + i);
    EXPECT_EQ("gemm_" + std::string(format_name(static_cast<GemmFormat>(i))),
              category_name(category));
  }
}

// A step on a grid of ns: what the main lane does in each of them, and whether a collective runs.
// The collectives run one after the other, the first of them when their thread has woken up; the
// main lane goes on when the one that it waits for is done and it has woken up itself.
struct MadeUp {
  std::vector<TimeSpan> spans;
  std::vector<CollectiveTime> collectives;
  std::vector<Category> main_lane;  // of each ns
  int64_t now() const { return static_cast<int64_t>(main_lane.size()); }
  void run(Category category, int64_t ns) {
    main_lane.insert(main_lane.end(), static_cast<size_t>(ns), category);
  }
};

MadeUp make_up(test::Random& random) {
  MadeUp step;
  const auto free_at = [&] {
    return step.collectives.empty() ? 0 : step.collectives.back().when.end;
  };
  const auto wait = [&](Category category) {  // for all that were handed over
    const int64_t begin = step.now();
    if (free_at() > begin) step.run(category, free_at() - begin + random.integer(0, 3));
    step.spans.push_back(span_of(category, {begin, step.now()}));
    return step.now() - begin;
  };
  for (int64_t n = random.integer(1, 30); n > 0; --n) {
    step.run(Category::kHostGap, random.integer(0, 3));
    const int64_t begin = step.now();
    const auto category = std::array{Category::kQuant, Category::kAttn, Category::kGemmNvfp4,
                                     Category::kOptim}[static_cast<size_t>(random.integer(0, 3))];
    step.run(category, random.integer(0, 8));
    int64_t waited = 0;
    if (category == Category::kQuant && random.integer(0, 1) == 0) {
      waited = wait(Category::kTpComm);
      step.run(category, random.integer(0, 4));
    }
    step.spans.push_back(span_of(category, {begin, step.now()}, waited));
    if (random.integer(0, 2) == 0) {
      const int64_t first = free_at() > step.now() ? free_at() : step.now() + random.integer(0, 3);
      step.collectives.emplace_back().when = {first, first + random.integer(1, 12)};
    }
    if (random.integer(0, 3) == 0) wait(Category::kGradReduce);
  }
  wait(Category::kGradReduce);
  return step;
}

TEST(Breakdown, AgreesWithAGrid) {
  test::Random random(5102);
  for (int round = 0; round < 1000; ++round) {
    SCOPED_TRACE(round);
    const MadeUp step = make_up(random);
    Breakdown expected{};
    for (const Category category : step.main_lane) {
      expected[static_cast<size_t>(category)] += 1e-6;
    }
    const Breakdown found = breakdown(step.spans, {0, step.now()});
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_NEAR(expected[i], found[i], 1e-12) << kCategoryNames[i];
    }
    EXPECT_NEAR(static_cast<double>(step.now()) * 1e-6,
                std::accumulate(found.begin(), found.end(), 0.0), 1e-12);

    int64_t ns_going = 0;
    for (const Category category : step.main_lane) ns_going += is_wait(category) ? 0 : 1;
    const std::vector<TimeRange> union_ns = going(step.spans, {0, step.now()});
    EXPECT_EQ(ns_going, overlap({0, step.now()}, union_ns));
    for (const TimeRange& x : union_ns) {
      for (int64_t t = x.begin; t < x.end; ++t) {
        EXPECT_FALSE(is_wait(step.main_lane[static_cast<size_t>(t)])) << t;
      }
    }
  }
}

// Exposed communication as what of the collectives lies outside of what the step does by itself,
// and as what it waits: the same, where it waits for nothing else.
TEST(Breakdown, BothEstimatesOfExposedCommunicationAgree) {
  test::Random random(5103);
  double sum = 0;
  for (int round = 0; round < 1000; ++round) {
    SCOPED_TRACE(round);
    const MadeUp step = make_up(random);
    const Breakdown ms = breakdown(step.spans, {0, step.now()});
    const double waited = ns_of(ms, Category::kGradReduce) + ns_of(ms, Category::kTpComm);
    const std::vector<double> bare =
        exposed(with_waking(step.collectives, step.spans), going(step.spans, {0, step.now()}));
    EXPECT_NEAR(std::accumulate(bare.begin(), bare.end(), 0.0), waited, 1e-6);
    sum += waited;
  }
  EXPECT_GT(sum, 0);
}

}  // namespace
}  // namespace qstep::trainer::testing
