#include "trainer/step/machine_memory.h"

#include <algorithm>

#include "ops/attention/attention_part.h"
#include "ops/gemm/gemm_plan_key.h"
#include "ops/gemm/gemm_scratch.h"
#include "ops/row_sums.h"
#include "parallel/nccl_memory.h"

namespace qstep::trainer {

namespace {

using precision::Gemm;
using precision::QuantSpec;

ProductFormat format_of(ops::ScaleMode scales, precision::ElementFormat element) {
  switch (scales) {
    case ops::ScaleMode::kVec16:
      return ProductFormat::kNvfp4;
    case ops::ScaleMode::kVec32:
      return element == precision::ElementFormat::kE2m1 ? ProductFormat::kMxfp4
                                                        : ProductFormat::kMxfp8;
    case ops::ScaleMode::kTensor:
      return ProductFormat::kFp8;
    default:
      return ProductFormat::kFp8Tiles;
  }
}

// What the library has by its documentation, for matrix units that the machine has.
NativeProducts native_products(const MachineModel& machine, ops::Dtype compute) {
  const auto multiplies = [machine](const ops::CodeProduct& p) {
    // No library multiplies MXFP4 (ops/README.md, CUDA).
    const ProductFormat format = format_of(p.a.scales, p.a.element);
    return documented(p) && format != ProductFormat::kMxfp4 && machine.has(format);
  };
  return {multiplies, compute};
}

// Of one rank's run.
class Scratch {
 public:
  Scratch(const Config& config, int capability, const NativeProducts& native)
      : config_(config),
        capability_(capability),
        native_(native),
        share_(tensor_share(config.model, config.parallel.tensor)),
        n_tokens_(config.train.micro_batch * config.train.seq_len) {}

  int64_t bytes() const {
    return ops::kGemmWorkspaceBytes + std::max({attention(), tiled_products(), row_sums()});
  }

 private:
  // FP32 tensors and other head sizes go to the row kernels, which need backward's deltas alone.
  int64_t attention() const {
    const ops::AttentionShape shape{.batch = config_.train.micro_batch,
                                    .seq_len = config_.train.seq_len,
                                    .n_heads = share_.n_heads,
                                    .n_kv_heads = share_.n_kv_heads,
                                    .head_dim = share_.head_dim};
    const bool fused = config_.compute_dtype() == ops::Dtype::kBf16 && shape.head_dim % 8 == 0 &&
                       shape.seq_len > 1;
    return fused ? ops::expected_attention_scratch(shape, ops::Direction::kBackward, capability_)
                 : 4 * shape.n_tokens() * shape.n_heads;
  }
  int64_t tiled_products() const {
    const auto tiled = [](const QuantSpec& spec) { return ops::scale_tile(spec).rows > 0; };
    int64_t floats = 0;
    for (const PrecisionPhase& phase : plan_precision(config_).phases) {
      for (size_t module = 0; module < phase.tables.size(); ++module) {
        const precision::OperandTable& table = phase.tables[module];
        const LinearShape shape = linear_shape(share_, static_cast<int64_t>(module));
        for (size_t i = 0; i < precision::kGemms.size(); ++i) {
          const auto gemm = static_cast<Gemm>(i);
          const precision::GemmOperands& operands = precision::kGemms[i];
          if (!tiled(table[operands.left]) && !tiled(table[operands.right])) continue;
          if (native_.has(table, gemm, shape, n_tokens_)) continue;
          const GemmShape d = gemm_shape(gemm, shape, n_tokens_);
          floats = std::max(floats, ops::tiled_product_floats(d.m * d.n));
        }
      }
    }
    return 4 * floats;
  }
  // Of the norms, where layer norm sums for weight and bias, and of the layers' biases.
  int64_t row_sums() const {
    const auto bytes = [](int64_t rows, int64_t width) {
      return 4 * ops::device::n_row_chunks(rows) * ops::device::ChunkSums::width_for(width);
    };
    const int64_t sums = share_.norm == NormKind::kLayer ? 2 : 1;
    const int64_t norms = sums * bytes(n_tokens_ / config_.parallel.tensor, share_.width);
    const int64_t widest = std::max({share_.qkv_width(), share_.up_width(), share_.width});
    return std::max(norms, share_.bias ? bytes(n_tokens_, widest) : 0);
  }

  const Config& config_;
  int capability_;
  const NativeProducts& native_;
  ModelConfig share_;
  int64_t n_tokens_;
};

// The pieces of the group that sums most ranks: data-parallel ranks their gradients, those of a
// tensor group the rows of activations.
int64_t staging(const parallel::Mesh& mesh) {
  return std::max(parallel::staging_bytes(mesh.data), parallel::staging_bytes(mesh.tensor));
}

// Of all communicators: the world, and behind its split a tensor group, neighbours within the link,
// and a data group. A split asks every rank of the world.
int64_t nccl_buffers(const parallel::Mesh& mesh, const MachineModel& machine) {
  constexpr double kPcieRate = 64e9;  // the fastest of the table: PCIe 5, 16 lanes
  const parallel::GpuLinks links{.nvlink = machine.link.peak > kPcieRate,
                                 .network_bytes_per_s = machine.network.peak};
  const auto of_group = [&](int n_ranks, int apart) {
    const int linked = std::clamp(machine.gpus_per_link / apart, 1, n_ranks);
    return parallel::expected_nccl_bytes(n_ranks, linked, links);
  };
  const int64_t world = of_group(mesh.tensor * mesh.data, 1);
  if (mesh.tensor == 1) return world;
  return world + of_group(mesh.tensor, 1) + of_group(mesh.data, mesh.tensor);
}

// Of a GPU of this capability; machine: null where it is not known.
std::vector<MemoryRow> gpu_memory(const Config& config, const NativeProducts& native,
                                  int capability, const MachineModel* machine, int n_ranks,
                                  int rank) {
  std::vector<MemoryRow> rows = training_memory(config, n_ranks, rank, native);
  if (capability == 0) return rows;
  std::vector<MemoryRow> more{{kGpuScratchOwner, Scratch(config, capability, native).bytes()}};
  if (n_ranks > 1) {
    const parallel::Mesh mesh =
        parallel::make_mesh(n_ranks, static_cast<int>(config.parallel.tensor));
    more.push_back({kStagingOwner, staging(mesh)});
    if (machine != nullptr) more.push_back({kNcclOwner, nccl_buffers(mesh, *machine)});
  }
  return joined_rows(std::move(rows), more);
}

}  // namespace

std::vector<MemoryRow> machine_memory(const Config& config, const MachineModel& machine,
                                      int n_ranks, int rank) {
  const NativeProducts native = native_products(machine, config.compute_dtype());
  return gpu_memory(config, native, machine.capability, &machine, n_ranks, rank);
}

std::vector<MemoryRow> backend_memory(const Config& config, ops::Ops& ops, int n_ranks, int rank,
                                      const ops::GpuFacts& gpu) {
  const NativeProducts native(ops, config.compute_dtype());
  const int capability = ops.in_host_memory() ? 0 : gpu.capability;
  return gpu_memory(config, native, capability, find_device(ops.name()), n_ranks, rank);
}

}  // namespace qstep::trainer
