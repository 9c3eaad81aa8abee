#include "trainer/plan/step_comm.h"

#include <fmt/format.h>

#include <algorithm>

#include "ops/error.h"

namespace qstep::trainer {

namespace {

struct Channel {
  double bytes_per_s = 0;
  Bound bound = Bound::kLink;
};

// Of a group of `size` ranks, each `stride` from the next. Beyond the fast link every member that
// a link domain holds sends through an adapter of its own.
Channel channel(const MachineModel& machine, int size, int stride) {
  if (size * stride <= machine.gpus_per_link) {
    if (machine.link.peak > 0) return {machine.link.attained(), Bound::kLink};
    throw ops::Error(
        ops::ExitCode::kConfig,
        fmt::format("machine {}: the link between its ranks is not known, so that only "
                    "one rank can be predicted",
                    machine.name));
  }
  if (machine.network.peak == 0) {
    throw ops::Error(
        ops::ExitCode::kConfig,
        fmt::format("machine {}: {} ranks are more than the {} that its link joins, and no network "
                    "is known: use fewer ranks, or describe it with --machine and [network]",
                    machine.name, size * stride, machine.gpus_per_link));
  }
  const int members = std::max(1, machine.gpus_per_link / stride);
  const double network = members * machine.network.attained();
  return network < machine.link.attained() ? Channel{network, Bound::kNetwork}
                                           : Channel{machine.link.attained(), Bound::kLink};
}

}  // namespace

std::vector<CommTime> step_comm(const StepWork& w, const ModelConfig& model, GradientType gradients,
                                const MachineModel& machine, const Windows& windows) {
  std::vector<CommTime> list;
  if (w.data > 1) {
    const Channel via = channel(machine, w.data, w.tensor);
    const double other = (w.data - 1.0) / w.data;
    const double calls = static_cast<double>(model.n_layers + 2);
    // The embeddings' bucket is the last to be written and the first to be read.
    const double first = w.embedding_parameters / w.parameters;
    const auto add = [&](std::string_view phase, std::string_view op, double bytes, double window) {
      const double total = bytes / via.bytes_per_s + calls * machine.launch_s;
      list.push_back({phase, "data", op, calls, bytes, total,
                      std::max(first * total, total - window), via.bound});
    };
    const double gradient = gradients == GradientType::kBf16 ? 2 : 4;
    add("grad_reduce", "reduce_scatter", gradient * other * w.parameters, windows.backward);
    // Buckets leave as they are updated, and the next forward pass waits for each as it comes to
    // it.
    add("param_gather", "all_gather", w.element_bytes * other * w.parameters,
        windows.update + windows.forward);
  }
  if (w.tensor > 1) {
    const Channel via = channel(machine, w.tensor, 1);
    const double exchange =
        w.element_bytes * static_cast<double>(w.tokens * model.width) * (w.tensor - 1.0) / w.tensor;
    const double each = exchange / via.bytes_per_s + machine.launch_s;
    const auto add = [&](std::string_view op, double calls, double exposed_each) {
      list.push_back({"tp_comm", "tensor", op, calls, calls * exchange, calls * each,
                      calls * exposed_each, via.bound});
    };
    const double blocks = static_cast<double>(model.n_layers) * w.micros;
    // 4 all-gathers and 4 reduce-scatters a block, 2 and 2 of embedding and head; those of dx of
    // qkv and up run beside the product of dw.
    add("all_gather", 4 * blocks + 2 * w.micros, each);
    add("reduce_scatter", 2 * blocks + 2 * w.micros, each);
    const double beside = windows.wgrad_column / static_cast<double>(2 * model.n_layers);
    add("reduce_scatter", 2 * blocks, std::max(0.0, each - beside));
  }
  return list;
}

}  // namespace qstep::trainer
