#include "ops/row_sums.h"

#include <gtest/gtest.h>

#include "ops/rmsnorm_kernels.h"
#include "tests/support/compare.h"
#include "tests/support/host_launch.h"

namespace qstep::test {
namespace {

TEST(RowSums, ChunksAreManyAndTheSumsFew) {
  using ops::device::chunk_rows;
  using ops::device::n_row_chunks;
  for (const int64_t rows : {1, 512, 2048, 8192, 16384, 1000000}) {
    EXPECT_GE(n_row_chunks(rows), std::min<int64_t>(rows / 4, 256)) << rows;
    EXPECT_GE(n_row_chunks(rows) * chunk_rows(rows), rows);
    EXPECT_LE(chunk_rows(rows), 32);
  }
  EXPECT_EQ(n_row_chunks(0), 0);
}

// One row of sums fits into shared memory, the other does not.
TEST(RowSums, RowsThatDoNotFitIntoSharedMemory) {
  for (const int64_t cols : {24000, 30001}) {
    constexpr int64_t kRows = 9;
    Random random(3);
    Guarded x(Dtype::kF32, kRows, cols, 3), dy(Dtype::kF32, kRows, cols), w(Dtype::kF32, 1, cols),
        rstd(Dtype::kF32, 1, kRows), dx(Dtype::kF32, kRows, cols), dw(Dtype::kF32, 1, cols),
        cpu_dx(Dtype::kF32, kRows, cols), cpu_dw(Dtype::kF32, 1, cols);
    x.fill(random, -2, 2);
    dy.fill(random, -1, 1);
    w.fill(random, 0.5, 1.5);
    rstd.fill(1.0);
    EXPECT_EQ(ops::device::chunk_sums(HostLaunch(), 3, ops::device::ChunkSums::width_for(cols),
                                      ops::device::norm_team(cols))
                  .in_shared,
              cols == 24000);
    using ops::Accumulate;
    ops::Workspace workspace;
    ops::cpu::rmsnorm_backward(cpu_dx, cpu_dw, dy, x, w, rstd, Accumulate::kNo, Accumulate::kNo,
                               workspace);
    for_each_order([&](const HostLaunch& launch) {
      ops::device::rmsnorm_backward(launch, dx, dw, dy, x, w, rstd, Accumulate::kNo,
                                    Accumulate::kNo, {});
      // Both are off by a rounding per row and five more, of sums of terms below 2; and dx, of
      // terms below 1.5 + 2 * 3, by those of a row's sum (tests/ops/rmsnorm_test.cpp).
      const double dw_bound = 2 * (kRows + 5) * kF32Roundoff * (2 * kRows);
      const double dx_bound = 2 * (static_cast<double>(cols) / 64 + 16) * kF32Roundoff * 7.5;
      expect_within(cpu_dw.values(), dw.values(), {.absolute = dw_bound}, "dw");
      expect_within(cpu_dx.values(), dx.values(), {.absolute = dx_bound}, "dx");
      dx.expect_guards_intact("dx");
      dw.expect_guards_intact("dw");
    });
  }
}

}  // namespace
}  // namespace qstep::test
