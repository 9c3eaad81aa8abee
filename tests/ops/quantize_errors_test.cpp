// Broken promises between the rooms: internal errors, before anything is written.
#include <gtest/gtest.h>

#include "tests/ops/quantize_testing.h"

namespace qstep::test {
namespace {

using precision::QuantFormat;
using precision::Source;

TEST(QuantizeErrors, WrongShapesAndTypesAreRefused) {
  Quantizer quantize;
  QuantInput in(Data::kNarrow, {32, 64}, Dtype::kBf16, 61);
  QuantSide row = in.side(nvfp4(), Orientation::kRowwise);
  QuantSide column = in.side(nvfp4(), Orientation::kColumnwise);
  EXPECT_THROW(quantize(column.q, {}, in), ops::Error);
  EXPECT_THROW(quantize({}, row.q, in), ops::Error);
  ops::QuantizedTensor no_scale = row.q;
  no_scale.scale = {};
  EXPECT_THROW(quantize(no_scale, {}, in), ops::Error);
  QuantInput other(Data::kNarrow, {16, 64}, Dtype::kBf16, 62);
  EXPECT_THROW(quantize(row.q, {}, other), ops::Error);
  QuantSide forward = in.side(nvfp4(), Orientation::kColumnwise);
  forward.q.spec.source = Source::kForward;
  EXPECT_THROW(quantize({}, forward.q, in), ops::Error);
}

}  // namespace
}  // namespace qstep::test
