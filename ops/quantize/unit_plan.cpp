#include "ops/quantize/unit_plan.h"

#include <algorithm>

namespace qstep::ops {

using precision::Headroom;
using precision::RandomPurpose;
using precision::Signs;
using precision::UnitPlan;

namespace {

constexpr float kLargestBf16 = 0x1.fep127f;

}  // namespace

UnitPlan unit_plan(const QuantSpec& spec, Orientation orientation, Dtype source,
                   const QuantRandom& random) {
  const bool row = orientation == Orientation::kRowwise;
  const auto stream = [&](RandomPurpose purpose) {
    return precision::random_stream(purpose, row ? 0 : 1, random.slot, random.module);
  };
  UnitPlan plan;
  plan.spec = spec;
  plan.unit = std::max(16, precision::unit_k(spec));
  plan.headroom = spec.headroom == Headroom::kSixteenSeventeenths;
  plan.range = precision::nvfp4_range(spec.e4m3_max, plan.headroom);
  plan.largest_scale = source == Dtype::kBf16 ? kLargestBf16 : precision::kMaxFloat;
  plan.seed = random.seed;
  plan.step = random.step;
  plan.rounder = random.rounder;
  plan.element_stream = stream(RandomPurpose::kElements);
  plan.scale_stream = stream(RandomPurpose::kScales);
  plan.signs =
      spec.signs == Signs::kFixed
          ? precision::fixed_signs()
          : precision::drawn_signs(random.seed, row ? random.gemm_row : random.gemm_column,
                                   random.module, spec.signs == Signs::kPerStep ? random.step : 0);
  return plan;
}

}  // namespace qstep::ops
