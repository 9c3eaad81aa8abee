// Memory of a rank with all that the backend of a GPU takes beside the run's tensors: on a machine
// that is only described, and on the one at hand.
#pragma once

#include <vector>

#include "ops/cuda/gpus.h"
#include "trainer/machine/machines.h"
#include "trainer/step/trainer.h"

namespace qstep::trainer {

// Of the scratch memory that the CUDA backend has from the first step on: of the operations the
// largest request (cuDNN's attention, sums of products with factors per tile, sums over tokens; all
// others, quantizers among them, ask for less than these), and cuBLASLt's workspace. While the
// first step chooses kernels, two outputs of a product more are taken where there is room.
inline constexpr const char* kGpuScratchOwner = "GPU scratch";
// Of several ranks: where sums over ranks are staged, exactly, and what NCCL takes for itself
// (parallel/nccl_memory.h).
inline constexpr const char* kStagingOwner = "NCCL staging";
inline constexpr const char* kNcclOwner = "NCCL buffers (estimate)";
// Not counted: the CUDA context with the code and local memory of kernels, and recorded graphs.

// Bytes per owner on rank `rank`, as training_memory has them, largest first. Operands of products
// that the machine multiplies natively are codes; what the backend takes is there where its
// capability is known.
std::vector<MemoryRow> machine_memory(const Config& config, const MachineModel& machine,
                                      int n_ranks = 1, int rank = 0);

// The same on a backend, of whose GPU `gpu` is what is known, by the same owners. NCCL's own are
// there where the machine is in the table.
std::vector<MemoryRow> backend_memory(const Config& config, ops::Ops& ops, int n_ranks = 1,
                                      int rank = 0, const ops::GpuFacts& gpu = ops::current_gpu());

}  // namespace qstep::trainer
