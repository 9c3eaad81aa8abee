// Memory of a rank on a machine that is only described: the run's tensors, and what the backend of
// its GPUs takes beside them.
#pragma once

#include <vector>

#include "trainer/machines.h"
#include "trainer/trainer.h"

namespace qstep::trainer {

// Of the scratch memory that the CUDA backend has from the first step on: of the operations the
// largest request (cuDNN's attention, sums of products with factors per tile, sums over tokens; all
// others, quantizers among them, ask for less than these), and cuBLASLt's workspace. Without the
// CUDA context and the libraries' own, about half a GB, which nobody can count in advance.
// While the first step chooses kernels, two outputs of a product more are taken where there is
// room.
inline constexpr const char* kGpuScratchOwner = "GPU scratch";

// Bytes per owner on rank `rank`, as training_memory has them, largest first. Operands of products
// that the machine multiplies natively are codes; the scratch memory is there where its capability
// is known.
std::vector<MemoryRow> machine_memory(const Config& config, const MachineModel& machine,
                                      int n_ranks = 1, int rank = 0);

}  // namespace qstep::trainer
