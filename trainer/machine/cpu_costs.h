// What the operations of a training step cost on this processor, measured on sizes of its own and
// taken to any model's by trainer/plan/README.md's formulas. A GPU's table
// (machines.h) gets along with peaks and shares; on a CPU loops over elements compute longer than
// they wait for memory, and products of a small model are far from the largest one's rate.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "ops/ops.h"
#include "trainer/config/model_config.h"

namespace qstep::trainer {

// Loops over elements, counted in: tokens times width (embedding, norms), times features
// (activation's output, bias), times columns of queries and keys (RoPE, QK-norm), of logits
// (cross-entropy with its gradient), or parameters.
enum class ElementOp : uint8_t {
  kEmbedForward,
  kEmbedBackward,
  kNormForward,  // with the residual
  kNormBackward,
  kActivationForward,
  kActivationBackward,
  kRope,
  kQkNormForward,
  kQkNormBackward,
  kBiasBackward,
  kCrossEntropy,
  kSquares,  // of the gradient's norm
  kUpdate,   // AdamW
  kAdd       // of the gradient's tree
};
inline constexpr size_t kElementOps = static_cast<size_t>(ElementOp::kAdd) + 1;

// seconds = launch + flops s_per_flop + bytes s_per_byte: the bytes of operands and output are
// packed and unpacked beside the arithmetic, at a rate of their own.
struct ProductCost {
  double launch_s = 0, s_per_flop = 0, s_per_byte = 0;

  double seconds(double flops, double bytes) const {
    return launch_s + flops * s_per_flop + bytes * s_per_byte;
  }
};
// From two products of different size without their launches. Where the smaller one is not slower
// by its bytes, they cost nothing.
struct MeasuredProduct {
  double flops = 0, bytes = 0, seconds = 0;
};
ProductCost product_cost(const MeasuredProduct& small, const MeasuredProduct& large,
                         double launch_s);

// seconds = pairs (s_per_pair + D s_per_pair_dim) + T D s_per_element, of every head and sequence:
// a score costs its exponential and multiply-adds along the head, and a row of q, k, v and o is
// packed or written once. Pairs of a query and a key are those that the tiles compute, T (T + 24) /
// 2: sixteen keys and eight queries at a time.
struct AttentionCost {
  double s_per_pair = 0, s_per_pair_dim = 0, s_per_element = 0;

  double seconds(int64_t seq_len, int64_t head_dim) const;  // of one head and sequence
};
// Of one head and sequence.
struct MeasuredAttention {
  int64_t seq_len = 0, head_dim = 0;
  double seconds = 0;
};
// The first two have the same T and heads of different size, the third another T. Where one of the
// costs came out below zero it is none.
AttentionCost attention_cost(const MeasuredAttention& small_head,
                             const MeasuredAttention& large_head, const MeasuredAttention& other);

// In one compute type.
struct TypeCosts {
  std::array<ProductCost, 3> products;  // in the order of kGemms: fprop, dgrad, wgrad
  AttentionCost attention_forward, attention_backward;
  std::array<double, kElementOps> element_s{};  // of one element

  double element(ElementOp op) const { return element_s[static_cast<size_t>(op)]; }
};

struct CpuCosts {
  TypeCosts fp32, bf16;
  double launch_s = 0;     // of a loop over elements: the threads are woken and meet again
  double cache_bytes = 0;  // tensors of a call beyond it come from memory
  double memory_bytes_per_s = 0;

  const TypeCosts& of(ops::Dtype compute) const {
    return compute == ops::Dtype::kF32 ? fp32 : bf16;
  }
};

// Measures all of them, a little each round, so that rounds can take turns with what is compared
// with them: another process slows both.
class CpuProbe {
 public:
  // Of the kinds of norm and activation that the model has, in these compute types.
  CpuProbe(const ModelConfig& model, const std::vector<ops::Dtype>& types);
  ~CpuProbe();

  // Every kernel for a few milliseconds, about a tenth of a second a type.
  void round();
  // Medians of the rounds, at least one.
  CpuCosts costs() const;

 private:
  struct Kernels;
  std::unique_ptr<Kernels> kernels_;
};

}  // namespace qstep::trainer
