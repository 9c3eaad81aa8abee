#include "trainer/machine_memory.h"

#include <algorithm>

#include "ops/attention_part.h"
#include "ops/gemm_plan_key.h"
#include "ops/gemm_scratch.h"
#include "ops/row_sums.h"

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
  Scratch(const Config& config, const MachineModel& machine, const NativeProducts& native)
      : config_(config),
        machine_(machine),
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
    return fused ? ops::expected_attention_scratch(shape, ops::Direction::kBackward,
                                                   machine_.capability)
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
  // Of the norms; layer norm sums for weight and bias.
  int64_t row_sums() const {
    const int64_t sums = share_.norm == NormKind::kLayer ? 2 : 1;
    return 4 * sums * ops::device::n_row_chunks(n_tokens_ / config_.parallel.tensor) *
           ops::device::ChunkSums::width_for(share_.width);
  }

  const Config& config_;
  const MachineModel& machine_;
  const NativeProducts& native_;
  ModelConfig share_;
  int64_t n_tokens_;
};

}  // namespace

std::vector<MemoryRow> machine_memory(const Config& config, const MachineModel& machine,
                                      int n_ranks, int rank) {
  const NativeProducts native = native_products(machine, config.compute_dtype());
  std::vector<MemoryRow> rows = training_memory(config, n_ranks, rank, native);
  if (machine.capability == 0) return rows;
  const Scratch scratch(config, machine, native);
  rows.push_back({kGpuScratchOwner, scratch.bytes()});
  std::stable_sort(rows.begin(), rows.end(),
                   [](const MemoryRow& a, const MemoryRow& b) { return a.bytes > b.bytes; });
  return rows;
}

}  // namespace qstep::trainer
