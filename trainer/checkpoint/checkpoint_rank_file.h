// rank00002.h5: what one rank stores of the tensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "trainer/base/durable_files.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace qstep::trainer {

// What `rank` writes: each with its slice, none empty; tensors without a slice are rank 0's. Throws
// an internal Error when tensor and slice do not fit.
std::vector<NamedTensor> own_slices(std::span<const NamedTensor> tensors, int64_t rank);

// About as many bytes as the file will have.
int64_t planned_bytes(std::span<const NamedTensor> own);

// Writes <folder>/<rank_file(rank)> with `own`, durable and read back for its checksum; the
// manifest of this file alone. Throws Error (disk).
Manifest write_rank_file(const CheckpointFiles& files, const std::string& folder, int64_t step,
                         int64_t rank, int64_t ranks, std::span<const NamedTensor> own);

}  // namespace qstep::trainer
