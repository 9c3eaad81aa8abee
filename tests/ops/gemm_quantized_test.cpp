// GEMMs of operands that carry factors: of the whole operand, and per tile.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ops/gemm/gemm.h"
#include "ops/gemm/gemm_tiled.h"
#include "tests/ops/gemm_side.h"

namespace qstep::test {
namespace {

using ops::Accumulate;
using ops::Major;
using ops::Operand;
using Values = std::vector<double>;

struct Shape {
  int64_t m, n, k, gap;
};

struct Case {
  Dtype in, out;
  Major a_major, b_major;
  Accumulate accumulate;
  bool bias;
  std::string text() const {
    return fmt::format("{}->{} majors {}{} accumulate {} bias {}", ops::name(in), ops::name(out),
                       static_cast<int>(a_major), static_cast<int>(b_major),
                       static_cast<int>(accumulate), bias);
  }
};

template <class F>
void for_each_case(const std::vector<Dtype>& inputs, F&& f) {
  for (const Dtype in : inputs) {
    for (const Dtype out : {Dtype::kF32, in}) {
      for (const Major a_major : {Major::kK, Major::kRows}) {
        for (const Major b_major : {Major::kK, Major::kRows}) {
          for (const Accumulate mode : {Accumulate::kNo, Accumulate::kYes}) {
            for (const bool bias : {false, true}) f(Case{in, out, a_major, b_major, mode, bias});
          }
        }
      }
    }
  }
}

// Factors per tile of an operand [rows, k]; tile_rows 0: none.
struct Tiles {
  Tiles(int64_t rows, int64_t k, int64_t rows_of_tile, int64_t k_of_tile, Random& random)
      : tile_rows(rows_of_tile), tile_k(k_of_tile == 0 ? k : k_of_tile) {
    if (tile_rows == 0) return;
    per_row = (k + tile_k - 1) / tile_k;
    for (int64_t i = 0; i < (rows + tile_rows - 1) / tile_rows * per_row; ++i) {
      scales.push_back(static_cast<float>(std::exp2(random.uniform(-8, 2))));
    }
  }
  float at(int64_t row, int64_t k) const {
    if (tile_rows == 0) return 1;
    return scales[static_cast<size_t>(row / tile_rows * per_row + k / tile_k)];
  }
  // Values [rows, k] times their factors.
  Values times(Values x, int64_t k) const {
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] *= at(static_cast<int64_t>(i) / k, static_cast<int64_t>(i) % k);
    }
    return x;
  }
  Operand on(Operand x) const {
    if (tile_rows == 0) return x;
    x.tile_scales = scales.data();
    x.tile_rows = tile_rows;
    x.tile_k = tile_k;
    return x;
  }
  int64_t tile_rows, tile_k, per_row = 0;
  std::vector<float> scales;
};

// Every way to multiply panels that this machine has.
std::vector<ops::PanelKernel> kernels() {
  std::vector<ops::PanelKernel> all{ops::multiply_panels_fp32};
  if (ops::bf16_panel_kernel() != nullptr) all.push_back(ops::bf16_panel_kernel());
  return all;
}

// In FP64: d = before + factor sum_k a b + bias, and the sum of the magnitudes of all terms.
struct Sums {
  Values expected, terms;
};
Sums fp64_sums(const Values& before, const Values& a, const Values& b, int64_t k, double factor,
               const Values& bias) {
  Sums sums{before, before};
  const auto depth = static_cast<size_t>(k);
  const size_t n_columns = b.size() / depth;
  for (size_t i = 0; i < before.size(); ++i) {
    const double* const left = a.data() + i / n_columns * depth;
    const double* const right = b.data() + i % n_columns * depth;
    sums.terms[i] = std::fabs(before[i]);
    const auto add = [&](double term) {
      sums.expected[i] += term;
      sums.terms[i] += std::fabs(term);
    };
    for (size_t j = 0; j < depth; ++j) add(factor * left[j] * right[j]);
    if (!bias.empty()) add(bias[i % n_columns]);
  }
  return sums;
}

// `roundings` in FP32 for every term, and one to the type of d.
void expect_near(const Sums& sums, const Guarded& d, Dtype out, double roundings) {
  const auto& [expected, terms] = sums;
  expect_within(
      expected, d.values(),
      [&](size_t i) {
        return roundings * kF32Roundoff * terms[i] +
               roundoff(out) * (1 + roundings * kF32Roundoff) * std::fabs(expected[i]) +
               roundoff(out) * roundings * kF32Roundoff * terms[i];
      },
      "d");
  d.expect_guards_intact("d");
}

// gemm_factor rounds three products, a product of denominators and a quotient.
constexpr double kFactorRoundings = 5;

TEST(GemmScaled, AgreesWithFp64) {
  constexpr Shape kShapes[] = {{1, 1, 1, 0}, {13, 17, 31, 5}, {33, 70, 129, 7}, {64, 48, 96, 0}};
  ops::cpu::Gemm gemm;
  Random random(101);
  const float sa = 3.7f, sb = 0.013f, da = 2688.0f, db = 1536.0f;
  for (const Shape& s : kShapes) {
    for_each_case({Dtype::kF32, Dtype::kBf16}, [&](const Case& c) {
      for (const auto& [has_a, has_b] : {std::pair{true, true}, {true, false}, {false, true}}) {
        SCOPED_TRACE(fmt::format("{}x{}x{} {} scales {}{}", s.m, s.n, s.k, c.text(), has_a, has_b));
        const Side a(c.in, s.m, s.k, c.a_major, s.gap, random);
        const Side b(c.in, s.n, s.k, c.b_major, s.gap, random);
        Operand left = a.operand(), right = b.operand();
        double factor = 1.5;
        if (has_a) {
          left.scale = &sa;
          left.scale_denominator = da;
          factor *= static_cast<double>(sa) / da;
        }
        if (has_b) {
          right.scale = &sb;
          right.scale_denominator = db;
          factor *= static_cast<double>(sb) / db;
        }
        Guarded bias(c.in, 1, s.n), d(c.out, s.m, s.n, s.gap);
        bias.fill(random, -1e-3, 1e-3);
        Values before(static_cast<size_t>(s.m * s.n));
        if (c.accumulate == Accumulate::kYes) before = d.fill(random, -1e-3, 1e-3).values();
        const Sums sums = fp64_sums(before, a.values(), b.values(), s.k, factor,
                                    c.bias ? bias.values() : Values{});
        gemm(d, left, right, 1.5f, c.accumulate, c.bias ? bias.tensor() : Tensor{});
        // Products and additions, factor, bias and d.
        expect_near(sums, d, c.out, 2 * static_cast<double>(s.k) + kFactorRoundings + 3);
      }
    });
  }
}

struct Tiling {
  int64_t a_rows, a_k, b_rows, b_k;  // rows 0: no tiles; k 0: the whole
};
constexpr Tiling kTilings[] = {
    {1, 128, 128, 128},                 // fp8 blocks: fprop, dgrad
    {1, 128, 1, 128},                   // wgrad
    {1, 0, 1, 0},                       // a factor per row
    {1, 0, 1, 128},                     // rows of one, groups of the other
    {1, 128, 0, 0},                     // one side alone
    {0, 0, 128, 128},   {2, 6, 3, 12},  // a multiple
};

TEST(GemmTiled, AgreesWithFp64) {
  constexpr Shape kShapes[] = {{1, 1, 1, 0}, {13, 17, 31, 5}, {131, 50, 257, 3}, {8, 48, 128, 0}};
  Random random(102);
  ops::Workspace workspace;
  for (const Shape& s : kShapes) {
    for (const Tiling& t : kTilings) {
      const Tiles sa(s.m, s.k, t.a_rows, t.a_k, random), sb(s.n, s.k, t.b_rows, t.b_k, random);
      for_each_case({Dtype::kBf16}, [&](const Case& c) {
        SCOPED_TRACE(fmt::format("{}x{}x{} {} tiles {}x{} {}x{}", s.m, s.n, s.k, c.text(), t.a_rows,
                                 t.a_k, t.b_rows, t.b_k));
        const Side a(c.in, s.m, s.k, c.a_major, s.gap, random);
        const Side b(c.in, s.n, s.k, c.b_major, s.gap, random);
        const float factor = -0.75f;
        Guarded bias(c.in, 1, s.n), d(c.out, s.m, s.n, s.gap);
        bias.fill(random, -1, 1);
        const Values before = d.fill(random, -1, 1).values();
        const Sums sums =
            fp64_sums(c.accumulate == Accumulate::kYes ? before : Values(before.size()),
                      sa.times(a.values(), s.k), sb.times(b.values(), s.k), s.k, factor,
                      c.bias ? bias.values() : Values{});
        // Products and additions within a tile; its first factor; an addition per tile; factor,
        // bias and d.
        const int64_t tile = std::min(sa.tile_k, sb.tile_k);
        const int64_t n_tiles = (s.k + tile - 1) / tile;
        const double roundings =
            2 * static_cast<double>(std::min(tile, s.k)) + static_cast<double>(n_tiles) + 1 + 3;
        for (const ops::PanelKernel kernel : kernels()) {
          d.assign(before);
          ops::cpu::gemm_tiled(d, sa.on(a.operand()), sb.on(b.operand()), factor, c.accumulate,
                               c.bias ? bias.tensor() : Tensor{}, workspace, kernel);
          expect_near(sums, d, c.out, roundings);
        }
      });
    }
  }
}

float rounded_to(Dtype dtype, float x) {
  return dtype == Dtype::kBf16 ? precision::to_float(precision::to_bf16(x)) : x;
}

// Integers: every sum is exact in FP32 whatever its order. Only what the contract rounds is left.
Side integers(int64_t rows, int64_t k, Major major, Random& random) {
  Side side(Dtype::kBf16, rows, k, major, 0, random);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      side.set(r, i, static_cast<double>(random.integer(-255, 255)));
    }
  }
  return side;
}
// Over [first, last) of row m of a and row n of b, both [., k].
float exact_sum(const Values& a, int64_t m, const Values& b, int64_t n, int64_t k, int64_t first,
                int64_t last) {
  double sum = 0;
  for (int64_t i = first; i < last; ++i) {
    sum += a[static_cast<size_t>(m * k + i)] * b[static_cast<size_t>(n * k + i)];
  }
  return static_cast<float>(sum);
}

TEST(GemmScaled, RoundsInTheOrderOfTheContract) {
  constexpr int64_t M = 19, N = 35, K = 240;  // K 255^2 < 2^24
  ops::cpu::Gemm gemm;
  Random random(103);
  int other_factor = 0, other_sum = 0;
  for_each_case({Dtype::kBf16}, [&](const Case& c) {
    SCOPED_TRACE(c.text());
    const Side a = integers(M, K, c.a_major, random), b = integers(N, K, c.b_major, random);
    const Values a_values = a.values(), b_values = b.values();
    const auto draw = [&] { return static_cast<float>(random.uniform(0.1, 10)); };
    const float alpha = draw(), sa = draw(), sb = draw();
    Operand left = a.operand(), right = b.operand();
    left.scale = &sa;
    left.scale_denominator = 2688.0f;
    right.scale = &sb;
    right.scale_denominator = draw();
    Guarded bias(c.in, 1, N), d(c.out, M, N);
    bias.fill(random, -50, 50);
    d.fill(random, -50, 50);
    Guarded expected(c.out, M, N);
    const float alpha_sa = alpha * sa, product = alpha_sa * sb;
    const float denominators = 2688.0f * right.scale_denominator;
    const float inverse = 1.0f / denominators, factor = product * inverse;
    other_factor += factor != product / denominators;
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t n = 0; n < N; ++n) {
        const float sum = exact_sum(a_values, m, b_values, n, K, 0, K);
        float x = sum * factor;
        const float fused = std::fma(sum, factor, static_cast<float>(bias.at(0, n)));
        if (c.bias) x = x + static_cast<float>(bias.at(0, n));
        other_sum += c.bias && fused != x;
        if (c.accumulate == Accumulate::kYes) x = x + static_cast<float>(d.at(m, n));
        expected.set(m, n, rounded_to(c.out, x));
      }
    }
    gemm(d, left, right, alpha, c.accumulate, c.bias ? bias.tensor() : Tensor{});
    expect_same_bits(expected, d, "d");
  });
  EXPECT_GT(other_factor, 0) << "the values do not tell one order from another";
  EXPECT_GT(other_sum, 0) << "the values do not tell a rounded product from a fused one";
}

TEST(GemmTiled, RoundsInTheOrderOfTheContract) {
  constexpr int64_t M = 131, N = 50, K = 299;  // tiles of 128, the last of 43
  Random random(104);
  ops::Workspace workspace;
  int other = 0;
  for (const Tiling& t : {Tiling{1, 128, 128, 128}, Tiling{1, 128, 1, 128}, Tiling{1, 0, 1, 128},
                          Tiling{0, 0, 1, 128}}) {
    const Tiles sa(M, K, t.a_rows, t.a_k, random), sb(N, K, t.b_rows, t.b_k, random);
    for_each_case({Dtype::kBf16}, [&](const Case& c) {
      SCOPED_TRACE(fmt::format("{} tiles {}x{} {}x{}", c.text(), t.a_rows, t.a_k, t.b_rows, t.b_k));
      const Side a = integers(M, K, c.a_major, random), b = integers(N, K, c.b_major, random);
      const Values a_values = a.values(), b_values = b.values();
      const auto factor = static_cast<float>(random.uniform(0.1, 10));
      Guarded bias(c.in, 1, N), d(c.out, M, N);
      bias.fill(random, -50, 50);
      const Values before = d.fill(random, -50, 50).values();
      Guarded expected(c.out, M, N);
      for (int64_t m = 0; m < M; ++m) {
        for (int64_t n = 0; n < N; ++n) {
          float y = 0, factors_first = 0;
          for (int64_t k = 0; k < K; k += 128) {
            const float p = exact_sum(a_values, m, b_values, n, K, k, std::min(K, k + 128));
            y = std::fma(p * sa.at(m, k), sb.at(n, k), y);
            factors_first = std::fma(p, sa.at(m, k) * sb.at(n, k), factors_first);
          }
          other += y != factors_first;
          float x = y * factor;
          if (c.bias) x = x + static_cast<float>(bias.at(0, n));
          if (c.accumulate == Accumulate::kYes) x = x + static_cast<float>(d.at(m, n));
          expected.set(m, n, rounded_to(c.out, x));
        }
      }
      for (const ops::PanelKernel kernel : kernels()) {
        d.assign(before);
        ops::cpu::gemm_tiled(d, sa.on(a.operand()), sb.on(b.operand()), factor, c.accumulate,
                             c.bias ? bias.tensor() : Tensor{}, workspace, kernel);
        expect_same_bits(expected, d, "d");
      }
    });
  }
  EXPECT_GT(other, 0) << "the values do not tell one order from another";
}

TEST(GemmScaled, ReadsTheScalesAtEveryCall) {
  Random random(105);
  const Side a(Dtype::kBf16, 5, 16, Major::kK, 0, random);
  const Side b(Dtype::kBf16, 7, 16, Major::kK, 0, random);
  ops::cpu::Gemm gemm;
  float scale = 1;
  Operand left = a.operand();
  left.scale = &scale;
  Guarded one(Dtype::kF32, 5, 7), four(Dtype::kF32, 5, 7), expected(Dtype::kF32, 5, 7);
  gemm(one, left, b.operand(), 1, Accumulate::kNo, {});
  scale = 4;
  gemm(four, left, b.operand(), 1, Accumulate::kNo, {});
  Values times_four = one.values();
  for (double& x : times_four) x *= 4;
  expect_same_bits(expected.assign(times_four), four, "the scale of the second call");
}

// Tile scales and a scale of the whole operand, through the one entrance.
TEST(GemmTiled, TakesTheScaleOfTheOperandToo) {
  constexpr int64_t M = 9, N = 11, K = 256;
  Random random(106);
  const Side a = integers(M, K, Major::kK, random), b = integers(N, K, Major::kRows, random);
  const Values a_values = a.values(), b_values = b.values();
  const Tiles sa(M, K, 1, 128, random), none(N, K, 0, 0, random);
  const float scale = 1.7f;
  Operand left = sa.on(a.operand());
  left.scale = &scale;
  left.scale_denominator = 3;
  Guarded d(Dtype::kF32, M, N), expected(Dtype::kF32, M, N);
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t n = 0; n < N; ++n) {
      float y = 0;
      for (int64_t k = 0; k < K; k += 128) {
        y = std::fma(exact_sum(a_values, m, b_values, n, K, k, k + 128) * sa.at(m, k), 1.0f, y);
      }
      expected.set(m, n, y * (scale * (1.0f / 3.0f)));
    }
  }
  ops::cpu::Gemm gemm;
  gemm(d, left, none.on(b.operand()), 1, Accumulate::kNo, {});
  expect_same_bits(expected, d, "d");
}

TEST(GemmTiled, SameBitsAtAnyThreadsAndNoNewMemory) {
  constexpr int64_t M = 300, N = 210, K = 400;
  Random random(107);
  const Side a(Dtype::kBf16, M, K, Major::kRows, 3, random);
  const Side b(Dtype::kBf16, N, K, Major::kK, 3, random);
  const Tiles sa(M, K, 1, 128, random), sb(N, K, 128, 128, random);
  for (const ops::PanelKernel kernel : kernels()) {
    ops::Workspace workspace;
    int64_t capacity = 0;
    expect_same_bits_at_any_threads(
        [&] {
          Guarded d(Dtype::kBf16, M, N);
          ops::cpu::gemm_tiled(d, sa.on(a.operand()), sb.on(b.operand()), 1, Accumulate::kNo, {},
                               workspace, kernel);
          if (capacity == 0) capacity = workspace.capacity();
          EXPECT_EQ(workspace.capacity(), capacity);
          return d.bits();
        },
        "d");
  }
}

TEST(GemmTiled, NanAndInfinityReachTheirRowAlone) {
  Random random(108);
  Side a(Dtype::kBf16, 6, 41, Major::kK, 0, random);
  const Side b(Dtype::kBf16, 9, 41, Major::kRows, 0, random);
  a.set(2, 7, std::nan(""));
  a.set(4, 40, INFINITY);
  const Tiles sa(6, 41, 1, 16, random), sb(9, 41, 1, 16, random);
  ops::Workspace workspace;
  for (const ops::PanelKernel kernel : kernels()) {
    Guarded d(Dtype::kF32, 6, 9);
    ops::cpu::gemm_tiled(d, sa.on(a.operand()), sb.on(b.operand()), 1, Accumulate::kNo, {},
                         workspace, kernel);
    for (int64_t m = 0; m < 6; ++m) {
      for (int64_t n = 0; n < 9; ++n) {
        EXPECT_EQ(m != 2 && m != 4, std::isfinite(d.at(m, n))) << m << " " << n;
      }
    }
  }
}

TEST(GemmTiled, RefusesTilesItCannotFollow) {
  Random random(109);
  const Side a(Dtype::kBf16, 4, 60, Major::kK, 0, random);
  const Side b(Dtype::kBf16, 5, 60, Major::kK, 0, random);
  const Side wide(Dtype::kF32, 5, 60, Major::kK, 0, random);
  Guarded d(Dtype::kF32, 4, 5);
  ops::cpu::Gemm gemm;
  const auto run = [&](const Side& left, int64_t left_k, const Side& right, int64_t right_k) {
    const Tiles sa(4, 60, 1, left_k, random), sb(5, 60, 1, right_k, random);
    gemm(d, sa.on(left.operand()), sb.on(right.operand()), 1, Accumulate::kNo, {});
  };
  EXPECT_NO_THROW(run(a, 16, b, 32));
  EXPECT_THROW(run(a, 15, b, 30), ops::Error);  // a pair of k in two tiles
  EXPECT_THROW(run(a, 16, b, 24), ops::Error);  // neither a multiple of the other
  EXPECT_THROW(run(a, 16, wide, 16), ops::Error);
  Operand no_rows = Tiles(4, 60, 1, 16, random).on(a.operand());
  no_rows.tile_rows = 0;
  EXPECT_THROW(gemm(d, no_rows, b.operand(), 1, Accumulate::kNo, {}), ops::Error);
}

}  // namespace
}  // namespace qstep::test
