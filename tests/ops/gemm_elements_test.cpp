// The passes around a GPU library's products, run on the host: behind products of oneDNN they give
// what the CPU's own loop gives.
#include "ops/gemm/gemm_elements.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/gemm/gemm.h"
#include "ops/gemm/gemm_tiled.h"
#include "tests/ops/gemm_side.h"
#include "tests/support/host_launch.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using ops::Major;
using ops::Operand;
using Values = std::vector<double>;

TEST(GemmElements, FactorHasTheBitsOfTheCpus) {
  const float sa = 0.37f, sb = 11.25f;
  Operand a, b;
  for (const bool scaled_a : {false, true}) {
    for (const bool scaled_b : {false, true}) {
      a.scale = scaled_a ? &sa : nullptr;
      b.scale = scaled_b ? &sb : nullptr;
      a.scale_denominator = scaled_a ? 6.0f * 448.0f : 1.0f;
      b.scale_denominator = scaled_b ? 6.0f * 256.0f : 1.0f;
      float factors[2] = {};
      ops::device::GemmFactors{.factors = factors,
                               .a_scale = a.scale,
                               .b_scale = b.scale,
                               .a_denominator = a.scale_denominator,
                               .b_denominator = b.scale_denominator,
                               .alpha = -0.7f,
                               .beta = 1.0f}(0);
      EXPECT_EQ(ops::gemm_factor(-0.7f, a, b), factors[0]);
      EXPECT_EQ(1.0f, factors[1]);
    }
  }
}

struct TileCase {
  int64_t m, n, k, a_rows, a_k, b_rows, b_k;
};
// Tiles of one row, of blocks, of all of k, ragged ends; one side without.
constexpr TileCase kTileCases[] = {{5, 9, 256, 1, 128, 128, 128},
                                   {130, 131, 300, 1, 128, 128, 128},
                                   {17, 3, 64, 1, 64, 1, 16},
                                   {8, 8, 48, 0, 0, 4, 16},
                                   {1, 1, 2, 1, 2, 1, 2}};

TEST(GemmElements, TileByTileAgreesWithTheCpusLoop) {
  Random random(93);
  ops::cpu::Gemm gemm;
  for (const TileCase& c : kTileCases) {
    for (const Dtype out : {Dtype::kF32, Dtype::kBf16}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(fmt::format("{}x{}x{} {} {}", c.m, c.n, c.k, ops::name(out), accumulate));
        const Side a(Dtype::kBf16, c.m, c.k, Major::kK, 1, random);
        const Side b(Dtype::kBf16, c.n, c.k, Major::kRows, 0, random);
        const auto tiles = [&](int64_t rows, int64_t tile_rows, int64_t tile_k) {
          if (tile_k == 0) return Guarded(Dtype::kF32, 1, 1);
          return Guarded(Dtype::kF32, (rows + tile_rows - 1) / tile_rows,
                         (c.k + tile_k - 1) / tile_k);
        };
        Guarded sa = tiles(c.m, c.a_rows, c.a_k), sb = tiles(c.n, c.b_rows, c.b_k);
        sa.fill(random, 0.5, 2);
        sb.fill(random, 0.5, 2);
        const auto with = [](Operand x, const Guarded& scales, int64_t rows, int64_t k) {
          if (k == 0) return x;
          x.tile_scales = scales.tensor().as<float>();
          x.tile_rows = rows;
          x.tile_k = k;
          return x;
        };
        const Operand left = with(a.operand(), sa, c.a_rows, c.a_k);
        const Operand right = with(b.operand(), sb, c.b_rows, c.b_k);
        Guarded bias(Dtype::kBf16, 1, c.n), expected(out, c.m, c.n, 2), found(out, c.m, c.n, 2);
        bias.fill(random, -1, 1);
        expected.fill(random, -1, 1);
        for (int64_t r = 0; r < c.m; ++r) {
          for (int64_t col = 0; col < c.n; ++col) found.set(r, col, expected.at(r, col));
        }
        const float alpha = 0.75f;
        gemm(expected, left, right, alpha, accumulate ? Accumulate::kYes : Accumulate::kNo, bias);

        const auto size = static_cast<size_t>(c.m * c.n);
        std::vector<float> y(size, NAN), p(size, NAN);
        Values terms(size, 2.0);  // magnitudes of what is added up: bias and d first
        const auto factors = [](const Operand& x, int64_t k) {
          if (!ops::tiled(x)) return ops::device::TileFactors{};
          return ops::device::TileFactors{x.tile_scales, x.tile_rows,
                                          (x.k + x.tile_k - 1) / x.tile_k, k / x.tile_k};
        };
        const int64_t tile = std::min(ops::tile_k(left), ops::tile_k(right));
        for (int64_t k = 0; k < c.k; k += tile) {
          const int64_t length = std::min(tile, c.k - k);
          gemm(ops::view(std::span(p), c.m, c.n), ops::k_range(left, k, length),
               ops::k_range(right, k, length), 1.0f, Accumulate::kNo, {});
          const ops::device::AddTileProduct add{.y = y.data(),
                                                .p = p.data(),
                                                .n = c.n,
                                                .a = factors(left, k),
                                                .b = factors(right, k),
                                                .first = k == 0};
          for (int64_t i = 0; i < c.m * c.n; ++i) {
            add(i);
            for (int64_t j = k; j < k + length; ++j) {
              terms[static_cast<size_t>(i)] +=
                  std::fabs(a.at(i / c.n, j) * b.at(i % c.n, j)) * 4.0;  // factors are at most 2
            }
          }
        }
        ops::dispatch_float(out, [&](auto tag) {
          using Out = decltype(tag);
          const ops::device::FinishProduct<Out, ops::Bf16> finish{
              .d = found.tensor().as<Out>(),
              .y = y.data(),
              .factor = &alpha,
              .bias = bias.tensor().as<ops::Bf16>(),
              .n = c.n,
              .ld = found.tensor().ld,
              .accumulate = accumulate};
          for (int64_t i = 0; i < c.m * c.n; ++i) finish(i);
        });
        // Two orders of the same sums, each rounded once per product, addition and factor; a
        // different last bit before the rounding to `out` may move it by a whole unit there.
        const double roundings = 2.0 * (2.0 * static_cast<double>(c.k) + 6.0);
        test::expect_within(
            expected.values(), found.values(),
            [&](size_t i) {
              return roundings * kF32Roundoff * terms[i] +
                     (out == Dtype::kBf16 ? 2 * kBf16Roundoff * std::fabs(expected.values()[i])
                                          : 0);
            },
            "d");
        found.expect_guards_intact("d");
      }
    }
  }
}

TEST(GemmElements, OneDifferentWordIsFound) {
  std::vector<uint32_t> a(5000, 7), b = a;
  int32_t different = -1;
  const auto find = [&] {
    for_each_order([&](const HostLaunch& launch) {
      launch.teams(1, ops::device::kMaxTeam, 0,
                   ops::device::FindDifference{&different, a.data(), b.data(), 5000});
    });
    return different;
  };
  EXPECT_EQ(0, find());
  b[4321] = 6;
  EXPECT_EQ(1, find());
}

}  // namespace
}  // namespace qstep::test
