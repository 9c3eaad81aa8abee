// Which elements of the flat arrays decay.
#include "trainer/step/optimizer.h"

#include <gtest/gtest.h>

#include "tests/trainer/split_testing.h"

namespace qstep::trainer::testing {
namespace {

// Every element of a weight is in one stretch, which decays as the weight does.
TEST(DecayStretches, HoldEveryElementOnce) {
  for (const auto& [name, model] : split_cases()) {
    for (const int t : tensor_sizes(model)) {
      SCOPED_TRACE(fmt::format("{} of {}", name, t));
      const ShardPlan plan = plan_shards(model, OptimizerState::kSharded, 1, 0, {t, 0});
      enum class Found : uint8_t { kNothing, kPlain, kDecayed };
      std::vector<Found> found(static_cast<size_t>(plan.total), Found::kNothing);
      int64_t end = 0;
      for (const DecayStretch& s : decay_stretches(plan)) {
        EXPECT_LE(end, s.first);
        end = s.first + s.size;
        for (int64_t i = s.first; i < end; ++i) {
          found[static_cast<size_t>(i)] = s.decay == Decay::kYes ? Found::kDecayed : Found::kPlain;
        }
      }
      for (const PlacedWeight& weight : plan.weights) {
        const Found expected = weight.spec.decay == Decay::kYes ? Found::kDecayed : Found::kPlain;
        for (int64_t i = 0; i < weight.size(); ++i) {
          ASSERT_EQ(expected, found[static_cast<size_t>(weight.first + i)]) << weight.spec.name;
        }
      }
    }
  }
}

// A stretch ends with its bucket, whose run of owned elements it is updated with.
TEST(DecayStretches, StayInTheirBuckets) {
  for (const auto& [name, model] : split_cases()) {
    const ShardPlan plan = plan_shards(model);
    for (const DecayStretch& s : decay_stretches(plan)) {
      bool inside = false;
      for (const Bucket& b : plan.buckets) {
        inside = inside || (b.first <= s.first && s.first + s.size <= b.first + b.size);
      }
      EXPECT_TRUE(inside) << name << ": " << s.first << " to " << s.first + s.size;
    }
  }
}

}  // namespace
}  // namespace qstep::trainer::testing
