#include "parallel/nccl_memory.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace qstep::parallel {

namespace {

// For the pieces of other ranks, and the longest of them: long enough that launching the exchange
// of a piece, some tens of microseconds, vanishes beside 400 GB/s.
constexpr int64_t kStagingBytes = int64_t{256} << 20;
constexpr int64_t kPieceBytes = int64_t{32} << 20;
constexpr int64_t kLineBytes = 128;

// Of NCCL.
constexpr int64_t kChannelBytes = int64_t{12} << 20;  // of a pair, on each of the two GPUs
constexpr int64_t kChannels = 32, kPcieChannels = 2;
constexpr double kChannelNetworkRate = 14e9;  // NCCL_P2P_PER_CHANNEL_NET_BW
constexpr int64_t kPeersPerBatch = 8;         // NCCL_MAX_DEV_WORK_P2P_PER_BATCH

int64_t channels_of_a_pair(int64_t n_ranks, bool beyond_link, const GpuLinks& links) {
  int64_t channels = links.nvlink ? kChannels : kPcieChannels;
  if (!beyond_link) return channels;
  const auto wanted = static_cast<uint64_t>(
      std::max(1.0, std::ceil(links.network_bytes_per_s / kChannelNetworkRate)));
  channels = std::min(channels, static_cast<int64_t>(std::bit_ceil(wanted)));
  const int64_t batches = (n_ranks + kPeersPerBatch - 1) / kPeersPerBatch;
  while (channels > 1 && channels * batches > kChannels) channels /= 2;
  return channels;
}

}  // namespace

int64_t piece_bytes(int n_ranks) {
  const int64_t share = kStagingBytes / std::max(n_ranks - 1, 1);
  return std::clamp(share / kLineBytes * kLineBytes, kLineBytes, kPieceBytes);
}

int64_t staging_bytes(int n_ranks) { return (n_ranks - 1) * piece_bytes(n_ranks); }

int64_t expected_nccl_bytes(int n_ranks, int linked, const GpuLinks& links) {
  return (linked - 1) * channels_of_a_pair(n_ranks, linked < n_ranks, links) * kChannelBytes;
}

}  // namespace qstep::parallel
