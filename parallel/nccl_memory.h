// Memory of a GPU that exchanges between ranks take over NCCL beside the tensors: arithmetic,
// without the library.
#pragma once

#include <cstdint>

namespace qstep::parallel {

// Up to here every rank of a group gets all elements of all ranks and adds them itself: one
// exchange.
inline constexpr int64_t kSmallSumBytes = int64_t{64} << 10;

// Longer sums come in pieces of this many bytes from each rank of a group of so many.
int64_t piece_bytes(int n_ranks);
// Where a rank puts the pieces of all others: at most 256 MiB. Groups share it.
int64_t staging_bytes(int n_ranks);

// What joins GPUs, as far as NCCL's memory depends on it.
struct GpuLinks {
  bool nvlink = false;             // otherwise PCIe
  double network_bytes_per_s = 0;  // of a GPU, beyond its link
};

// An estimate of what NCCL itself takes on a GPU for a group of n ranks, `linked` of them within
// this GPU's link, once each has exchanged something with each; never measured by us. From the
// source of NCCL 2.30.7: a pair within the link has, for each of its channels, 2 MiB on one side
// and 10 MiB on the other (LL 0.5 MiB, LL128 4.7, Simple 4, rounded up to 2 MiB; transport/p2p.cc,
// init.cc). Channels of a pair: 2 over PCIe; over NVLink 32, as eight H100 have (NVIDIA/nccl#1685:
// 3.3 GB more behind the first all-to-all, of which this is 2.8); where ranks lie beyond the link,
// what their network wants of 14 GB/s a channel, and fewer the more ranks there are
// (graph/paths.cc). Not in it: buffers for the network, and those of the library's own collectives,
// which nothing here calls.
int64_t expected_nccl_bytes(int n_ranks, int linked, const GpuLinks& links);

}  // namespace qstep::parallel
