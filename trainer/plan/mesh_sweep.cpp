#include "trainer/plan/mesh_sweep.h"

#include <algorithm>

#include "trainer/config/rank_check.h"
#include "trainer/config/tensor_check.h"
#include "trainer/step/machine_memory.h"

namespace qstep::trainer {

std::vector<SweepRow> sweep_meshes(const Config& config, const MachineModel& machine, int n_ranks) {
  std::vector<SweepRow> rows;
  for (int64_t micro = 1; micro <= config.train.global_batch; micro *= 2) {
    if (config.train.global_batch % micro != 0) break;
    Config candidate = config;
    candidate.train.micro_batch = micro;
    for (const int64_t tensor : possible_tensors(candidate)) {
      candidate.parallel.tensor = tensor;
      // Layers shared over a network wait for it several times a block.
      if (tensor > machine.gpus_per_link || !rank_problems(candidate, n_ranks).empty()) continue;
      SweepRow row{.tensor = tensor,
                   .data = n_ranks / tensor,
                   .micro_batch = micro,
                   .memory_bytes = total_bytes(machine_memory(candidate, machine, n_ranks)),
                   .time = predict_step(candidate, machine, n_ranks)};
      row.fits = row.memory_bytes <= machine.memory_bytes;
      rows.push_back(std::move(row));
    }
  }
  std::stable_sort(rows.begin(), rows.end(), [](const SweepRow& a, const SweepRow& b) {
    return a.fits != b.fits ? a.fits : a.time.seconds() < b.time.seconds();
  });
  return rows;
}

}  // namespace qstep::trainer
