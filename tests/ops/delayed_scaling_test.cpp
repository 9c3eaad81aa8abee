#include "ops/quantize/delayed_scaling.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <limits>

#include "tests/support/compare.h"

namespace qstep::test {
namespace {

using precision::DelayedAlgo;
using precision::DelayedScaling;

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

// Transformer Engine's state of one tensor: place 0 of the history gathers the amax of the running
// step.
struct Reference {
  std::vector<float> history;
  float scale;

  void update(float fp8_max, const DelayedScaling& delayed) {
    const float newest = history[0];
    float used = 0;
    if (newest != 0) {
      std::vector<float> rolled(history.begin() + 1, history.end());
      rolled.push_back(newest);
      for (const float a : rolled) used = std::fmax(used, a);
      history = rolled;
      history[0] = 0;
    }
    if (delayed.algo == DelayedAlgo::kMostRecent) used = newest;
    const float scaled_max = fp8_max * std::pow(2.0f, -static_cast<float>(delayed.margin));
    if (std::isfinite(used) && used > 0) scale = scaled_max / used;
    if (std::isinf(scale)) scale = FLT_MAX;
  }
};

struct State {
  State(int64_t n, int64_t steps, int64_t gap = 0)
      : history(Dtype::kF32, n, steps, gap),
        scale(Dtype::kF32, 1, n),
        amax(Dtype::kF32, n, 1),
        fp8_max(Dtype::kF32, 1, n),
        factor(Dtype::kF32, 1, 1) {
    history.fill(0);
    scale.fill(1);
    amax.fill(0);
    fp8_max.fill(448);
    factor.fill(0.5);
  }
  void update(const DelayedScaling& delayed) {
    ops::cpu::update_delayed_scales(history, scale, amax, fp8_max, factor, delayed);
  }
  // One tensor sees an amax; returns its scale.
  double step(double newest, const DelayedScaling& delayed) {
    amax.set(0, 0, newest);
    update(delayed);
    EXPECT_EQ(amax.at(0, 0), 0);
    return scale.at(0, 0);
  }
  Guarded history, scale, amax, fp8_max, factor;
};

TEST(DelayedScaling, FollowsTheReferenceOverManySteps) {
  constexpr int64_t kTensors = 37;
  Random random(91);
  for (const int64_t steps : {1, 2, 3, 16, 100}) {
    for (const DelayedAlgo algo : {DelayedAlgo::kMax, DelayedAlgo::kMostRecent}) {
      for (const int64_t margin : {0, 1, 3}) {
        SCOPED_TRACE(
            fmt::format("history {} algo {} margin {}", steps, static_cast<int>(algo), margin));
        const DelayedScaling delayed{.history = steps, .algo = algo, .margin = margin};
        State state(kTensors, steps, 3);
        std::vector<Reference> reference(kTensors,
                                         {std::vector<float>(static_cast<size_t>(steps)), 1.0f});
        for (int64_t t = 1; t < kTensors; t += 2) state.fp8_max.set(0, t, 57344);
        for (int step = 0; step < 150; ++step) {
          for (int64_t t = 0; t < kTensors; ++t) {
            // Every magnitude, subnormal included, and now and then what is not a magnitude.
            double newest =
                std::ldexp(random.uniform(1, 2), static_cast<int>(random.integer(-149, 127)));
            switch (random.integer(0, 60)) {
              case 0:
                newest = 0;
                break;
              case 1:
                newest = kInf;
                break;
              case 2:
                newest = kNan;
                break;
              default:
                break;
            }
            state.amax.set(t, 0, newest);
            reference[static_cast<size_t>(t)].history[0] = static_cast<float>(newest);
          }
          state.update(delayed);
          for (int64_t t = 0; t < kTensors; ++t) {
            Reference& r = reference[static_cast<size_t>(t)];
            r.update(t % 2 == 1 ? 57344.0f : 448.0f, delayed);
            ASSERT_EQ(state.scale.at(0, t), r.scale) << "tensor " << t << " step " << step;
            ASSERT_EQ(state.amax.at(t, 0), 0);
            // Where the newest amax was 0 nothing rolls; the reference's place 0 is 0 then too.
            for (int64_t i = 0; i < steps; ++i) {
              const double expected = r.history[static_cast<size_t>(i)];
              const double found = state.history.at(t, i);
              ASSERT_TRUE(expected == found || (std::isnan(expected) && std::isnan(found)))
                  << "tensor " << t << " step " << step << " place " << i;
            }
          }
        }
        state.history.expect_guards_intact("history");
        state.scale.expect_guards_intact("scale");
        state.amax.expect_guards_intact("amax");
      }
    }
  }
}

TEST(DelayedScaling, TheLargestAmaxCountsUntilItHasLeft) {
  const DelayedScaling delayed{.history = 3};
  State state(1, 3);
  EXPECT_EQ(state.step(4, delayed), 112);  // 448 / 4
  EXPECT_EQ(state.step(2, delayed), 112);
  EXPECT_EQ(state.step(1, delayed), 112);  // 4, 2, 1
  EXPECT_EQ(state.step(1, delayed), 224);  // 2, 1, 1
  EXPECT_EQ(state.history.values(), (std::vector<double>{0, 1, 1}));
}

TEST(DelayedScaling, AnAmaxOfZeroLeavesHistoryAndScale) {
  for (const DelayedAlgo algo : {DelayedAlgo::kMax, DelayedAlgo::kMostRecent}) {
    const DelayedScaling delayed{.history = 4, .algo = algo};
    State state(1, 4);
    EXPECT_EQ(state.step(0, delayed), 1);  // nothing seen yet: the scale it starts with
    EXPECT_EQ(state.step(7, delayed), 64);
    const std::vector<double> before = state.history.values();
    EXPECT_EQ(state.step(0, delayed), 64);
    EXPECT_EQ(state.history.values(), before);
  }
}

TEST(DelayedScaling, AStepWithoutAnUpdateLeavesHistoryAndScale) {
  const DelayedScaling delayed{.history = 3};
  State state(1, 3);
  EXPECT_EQ(state.step(7, delayed), 64);
  const std::vector<double> before = state.history.values();
  state.factor.fill(kNan);
  EXPECT_EQ(state.step(14, delayed), 64);  // and the amax has become 0
  EXPECT_EQ(state.history.values(), before);
  state.factor.fill(1);
  EXPECT_EQ(state.step(28, delayed), 16);
}

TEST(DelayedScaling, AnAmaxThatIsNotFiniteKeepsTheScale) {
  const DelayedScaling newest{.history = 2, .algo = DelayedAlgo::kMostRecent};
  const DelayedScaling largest{.history = 2};
  for (const double bad : {kInf, kNan}) {
    State state(1, 2);
    EXPECT_EQ(state.step(7, newest), 64);
    EXPECT_EQ(state.step(bad, newest), 64);
    EXPECT_EQ(state.step(14, newest), 32);
  }
  State infinite(1, 2);
  EXPECT_EQ(infinite.step(7, largest), 64);
  EXPECT_EQ(infinite.step(kInf, largest), 64);
  EXPECT_EQ(infinite.step(14, largest), 64);  // the infinity still counts
  EXPECT_EQ(infinite.step(14, largest), 32);
  State nan(1, 2);
  EXPECT_EQ(nan.step(7, largest), 64);
  EXPECT_EQ(nan.step(kNan, largest), 64);  // the maximum of the others: 7
  EXPECT_EQ(nan.step(14, largest), 32);
}

TEST(DelayedScaling, AnInfiniteScaleBecomesTheLargestFloat) {
  const DelayedScaling delayed{.history = 2};
  State state(1, 2);
  EXPECT_EQ(state.step(0x1p-149, delayed), FLT_MAX);
}

TEST(DelayedScaling, MarginLowersTheScale) {
  State state(1, 2);
  EXPECT_EQ(state.step(7, {.history = 2, .margin = 2}), 16);
}

TEST(DelayedScaling, RefusesOtherShapesAndTypes) {
  const DelayedScaling delayed{.history = 4};
  State state(3, 4);
  const auto run = [&](const Tensor& h, const Tensor& s, const Tensor& a, const Tensor& m) {
    ops::cpu::update_delayed_scales(h, s, a, m, state.factor, delayed);
  };
  Guarded two(Dtype::kF32, 1, 2), narrow(Dtype::kBf16, 1, 3), no_steps(Dtype::kF32, 3, 0);
  EXPECT_NO_THROW(run(state.history, state.scale, state.amax, state.fp8_max));
  EXPECT_THROW(run(state.history, two, state.amax, state.fp8_max), ops::Error);
  EXPECT_THROW(run(state.history, state.scale, two, state.fp8_max), ops::Error);
  EXPECT_THROW(run(state.history, state.scale, state.amax, two), ops::Error);
  EXPECT_THROW(run(state.history, narrow, state.amax, state.fp8_max), ops::Error);
  EXPECT_THROW(ops::cpu::update_delayed_scales(state.history, state.scale, state.amax,
                                               state.fp8_max, two, delayed),
               ops::Error);
  EXPECT_THROW(run(no_steps, state.scale, state.amax, state.fp8_max), ops::Error);
}

}  // namespace
}  // namespace qstep::test
