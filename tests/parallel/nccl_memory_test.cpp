// Memory of exchanges over NCCL, by hand.
#include "parallel/nccl_memory.h"

#include <gtest/gtest.h>

namespace qstep::parallel {
namespace {

constexpr int64_t kMiB = 1 << 20;

TEST(NcclMemory, StagingHoldsAPieceOfEveryOtherRank) {
  EXPECT_EQ(0, staging_bytes(1));
  EXPECT_EQ(32 * kMiB, staging_bytes(2));
  EXPECT_EQ(7 * 32 * kMiB, staging_bytes(8));
  EXPECT_EQ(256 * kMiB, staging_bytes(9));
  for (const int n : {10, 64, 1000, 1 << 20}) {
    EXPECT_LE(staging_bytes(n), 256 * kMiB) << n;
    EXPECT_GT(staging_bytes(n), 256 * kMiB - 128 * n) << n;  // whole lines of memory
    EXPECT_EQ(0, piece_bytes(n) % 128) << n;                 // and elements
  }
}

// 12 MiB for each channel of a pair.
TEST(NcclMemory, TheLibrarysOwnGrowsWithPairsAndChannels) {
  const GpuLinks nvlink{.nvlink = true, .network_bytes_per_s = 50e9}, pcie{};
  EXPECT_EQ(0, expected_nccl_bytes(1, 1, nvlink));
  EXPECT_EQ(7 * 32 * 12 * kMiB, expected_nccl_bytes(8, 8, nvlink));
  EXPECT_EQ(7 * 2 * 12 * kMiB, expected_nccl_bytes(8, 8, pcie));
  // 50 GB/s of network want four channels of 14; 32 channels are shared by batches of 8 ranks.
  EXPECT_EQ(7 * 4 * 12 * kMiB, expected_nccl_bytes(16, 8, nvlink));
  EXPECT_EQ(7 * 4 * 12 * kMiB, expected_nccl_bytes(64, 8, nvlink));
  EXPECT_EQ(7 * 2 * 12 * kMiB, expected_nccl_bytes(65, 8, nvlink));
  EXPECT_EQ(7 * 1 * 12 * kMiB, expected_nccl_bytes(1024, 8, nvlink));
  EXPECT_EQ(0, expected_nccl_bytes(16, 1, nvlink));  // everybody beyond the link: not counted
}

}  // namespace
}  // namespace qstep::parallel
