#include "precision/scale_layout.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace qstep::precision {
namespace {

// G7 of numerics' appendix A: with 8 scale columns.
TEST(ScaleLayout, GoldenOffsets) {
  constexpr std::array<std::array<int64_t, 3>, 9> kGolden{{{0, 0, 0},
                                                           {0, 3, 3},
                                                           {0, 4, 512},
                                                           {1, 0, 16},
                                                           {31, 0, 496},
                                                           {32, 0, 4},
                                                           {33, 1, 21},
                                                           {127, 3, 511},
                                                           {128, 0, 1024}}};
  for (const auto& [row, col, offset] : kGolden) {
    EXPECT_EQ(swizzled_scale_offset(row, col, 8), offset) << row << ", " << col;
  }
}

// reshape(R/128, 4, 32, C/4, 4) with its axes in the order 0, 3, 2, 1, 4 (numerics 9.4).
TEST(ScaleLayout, IsThePermutationOfTheSpecification) {
  constexpr int64_t kRows = 384, kCols = 12;
  int64_t offset = 0;
  for (int64_t a = 0; a < kRows / 128; ++a) {
    for (int64_t d = 0; d < kCols / 4; ++d) {
      for (int64_t c = 0; c < 32; ++c) {
        for (int64_t b = 0; b < 4; ++b) {
          for (int64_t e = 0; e < 4; ++e) {
            EXPECT_EQ(swizzled_scale_offset(128 * a + 32 * b + c, 4 * d + e, kCols), offset++);
          }
        }
      }
    }
  }
  EXPECT_EQ(offset, swizzled_scale_bytes(kRows, kCols));
}

TEST(ScaleLayout, PaddedShapesHaveRoomForEveryScaleOnce) {
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{1, 1}, {128, 4}, {129, 5}, {37, 7}}) {
    std::vector<int> used(static_cast<size_t>(swizzled_scale_bytes(rows, cols)));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        EXPECT_EQ(used.at(static_cast<size_t>(swizzled_scale_offset(r, c, cols)))++, 0);
      }
    }
  }
  EXPECT_EQ(swizzled_scale_bytes(129, 5), 256 * 8);
}

}  // namespace
}  // namespace qstep::precision
