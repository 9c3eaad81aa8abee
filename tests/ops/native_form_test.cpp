// Where codes and block scales of native operands lie, against a reading of NVIDIA's documentation
// that builds the whole arrangement, one scale after another.
#include "ops/native_form.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <vector>

#include "precision/quant_spec.h"

namespace qstep::ops {
namespace {

using precision::AmaxScope;
using precision::BlockShape;
using precision::ElementFormat;
using precision::QuantFormat;
using precision::QuantSpec;

constexpr std::pair<int64_t, int64_t> kShapes[] = {{1, 1},     {128, 64},  {128, 128}, {127, 65},
                                                   {129, 257}, {300, 640}, {4, 1024},  {33, 4099}};

// "1D Block Scaling Factors Layout": tiles of 128 x 4, row-major; in a tile the offset goes through
// outer = (offset % 16) / 4 * 32 + offset / 16, inner = offset % 4.
std::vector<std::pair<int64_t, int64_t>> tiled(int64_t rows, int64_t cols) {
  std::vector<std::pair<int64_t, int64_t>> order;
  for (int64_t tile_row = 0; tile_row < rows; tile_row += 128) {
    for (int64_t tile_col = 0; tile_col < cols; tile_col += 4) {
      for (int64_t offset = 0; offset < 512; ++offset) {
        order.emplace_back(tile_row + offset % 16 / 4 * 32 + offset / 16, tile_col + offset % 4);
      }
    }
  }
  return order;
}

// "128-element 1D and 128x128 2D Block Scaling", "Scaling factors layouts".
std::vector<std::pair<int64_t, int64_t>> grid(int64_t outer, int64_t inner, bool outer_is_k) {
  std::vector<std::pair<int64_t, int64_t>> order;
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i < inner; ++i) order.emplace_back(outer_is_k ? i : o, outer_is_k ? o : i);
  }
  return order;
}

// (row of scales, block along k) of every scale in memory, those that are added included.
std::vector<std::pair<int64_t, int64_t>> documented(ScaleMode mode, int64_t rows, int64_t k) {
  const auto ceil = [](int64_t n, int64_t d) { return (n + d - 1) / d; };
  const int64_t L = ceil(k, 128);
  switch (mode) {
    case ScaleMode::kVec16:
      return tiled(rows, ceil(k, 16));
    case ScaleMode::kVec32:
      return tiled(rows, ceil(k, 32));
    case ScaleMode::kVec128:
      return grid(L, ceil(rows, 4) * 4, true);  // M-major
    default:
      return grid(ceil(rows, 128), ceil(L, 4) * 4, false);  // K-major
  }
}

TEST(NativeForm, ScalesLieWhereNvidiaDocumentsThem) {
  for (const ScaleMode mode :
       {ScaleMode::kVec16, ScaleMode::kVec32, ScaleMode::kVec128, ScaleMode::kBlock128}) {
    for (const auto& [rows, k] : kShapes) {
      const auto order = documented(mode, rows, k);
      EXPECT_EQ(static_cast<int64_t>(order.size()), block_scale_count(mode, rows, k));
      std::map<std::pair<int64_t, int64_t>, int64_t> at;
      for (size_t i = 0; i < order.size(); ++i) at[order[i]] = static_cast<int64_t>(i);
      ASSERT_EQ(order.size(), at.size());
      int64_t used = 0;
      const int64_t step = mode == ScaleMode::kBlock128 ? 128 : 1;
      for (int64_t r = 0; r < rows; r += step) {
        for (int64_t c = 0; c * scale_block_k(mode) < k; ++c, ++used) {
          ASSERT_EQ(at.at({r / step, c}), block_scale_offset(mode, r, c, rows, k))
              << fmt::format("mode {} [{}, {}] at {}, {}", static_cast<int>(mode), rows, k, r, c);
        }
      }
      EXPECT_EQ(used != block_scale_count(mode, rows, k), block_scales_are_padded(mode, rows, k));
    }
  }
  EXPECT_EQ(0, block_scale_count(ScaleMode::kTensor, 128, 128));
  EXPECT_EQ(0, block_scale_count(ScaleMode::kRow, 128, 128));
}

// What is added along k needs no scales of its own tile.
TEST(NativeForm, PaddedCodesNeedNoMoreScales) {
  for (const ScaleMode mode :
       {ScaleMode::kVec16, ScaleMode::kVec32, ScaleMode::kVec128, ScaleMode::kBlock128}) {
    const NativeForm form{mode == ScaleMode::kVec16 ? ElementFormat::kE2m1 : ElementFormat::kE4m3,
                          mode};
    for (int64_t k = 1; k < 1100; ++k) {
      const int64_t longer = padded_k(form, k);
      EXPECT_GE(longer, k);
      EXPECT_LT(longer, k + 32);
      EXPECT_EQ(0, code_bytes(form, k) % 16);
      EXPECT_EQ(block_scale_count(mode, 5, k), block_scale_count(mode, 5, longer));
      EXPECT_EQ(block_scale_offset(mode, 4, 0, 5, k), block_scale_offset(mode, 4, 0, 5, longer));
    }
  }
}

TEST(NativeForm, FollowsFromTheSpec) {
  const auto of = [](QuantFormat format, BlockShape block, AmaxScope amax) {
    QuantSpec spec = default_spec(format);
    spec.block = block;
    spec.amax = amax;
    return native_form(spec);
  };
  const AmaxScope tensor = AmaxScope::kTensor, row = AmaxScope::kRow;
  const auto form = [](ElementFormat element, ScaleMode scales) {
    return NativeForm{element, scales};
  };
  EXPECT_EQ(form(ElementFormat::kE2m1, ScaleMode::kVec16),
            of(QuantFormat::kNvfp4, {1, 16}, tensor));
  EXPECT_EQ(form(ElementFormat::kE2m1, ScaleMode::kVec16),
            of(QuantFormat::kNvfp4, {16, 16}, tensor));
  EXPECT_FALSE(of(QuantFormat::kNvfp4, {1, 16}, row));
  EXPECT_FALSE(of(QuantFormat::kNvfp4, {1, 16}, AmaxScope::kGroup128));
  EXPECT_EQ(form(ElementFormat::kE2m1, ScaleMode::kVec32),
            of(QuantFormat::kMxfp4, {1, 32}, tensor));
  EXPECT_EQ(form(ElementFormat::kE5m2, ScaleMode::kVec32),
            of(QuantFormat::kMxfp8E5m2, {32, 32}, tensor));
  EXPECT_EQ(form(ElementFormat::kE4m3, ScaleMode::kTensor),
            of(QuantFormat::kFp8E4m3, {0, 0}, AmaxScope::kDelayed));
  EXPECT_EQ(form(ElementFormat::kE5m2, ScaleMode::kRow), of(QuantFormat::kFp8E5m2, {0, 0}, row));
  EXPECT_EQ(form(ElementFormat::kE4m3, ScaleMode::kVec128),
            of(QuantFormat::kFp8E4m3, {1, 128}, tensor));
  EXPECT_EQ(form(ElementFormat::kE4m3, ScaleMode::kBlock128),
            of(QuantFormat::kFp8E4m3, {128, 128}, tensor));
  EXPECT_FALSE(native_form({}));
}

}  // namespace
}  // namespace qstep::ops
