// What one rank computes in a training step, counted from the configuration alone: matrix products,
// attention, quantization passes and passes over memory, with their flops and bytes. No machine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/config/layer_precision.h"
#include "trainer/machine/machines.h"

namespace qstep::trainer {

// When in a step: what may run beside the communication follows from it.
enum class StepPart : uint8_t { kForward, kHead, kBackward, kUpdate };

// d[m,n] = a[m,k] b[n,k]^T, `count` times a step.
struct ProductWork {
  std::string_view op;    // "qkv", "attn_out", "up", "down", "head"
  std::string_view pass;  // "fprop", "dgrad", "wgrad"
  StepPart part = StepPart::kForward;
  int64_t m = 0, n = 0, k = 0;
  precision::QuantSpec left, right;
  double count = 0;
  double output_bytes = 0;  // of one: written, and read where it adds

  double flops() const { return gemm_flops(m, n, k); }  // of one
};

// Both operands of a tensor [rows, cols] from one call, `count` times a step.
struct QuantizeWork {
  std::string_view op, tensor;  // "qkv", "x"
  StepPart part = StepPart::kForward;
  int64_t rows = 0, cols = 0;
  precision::LinearTensor operands_of = precision::LinearTensor::kX;
  precision::OperandTable table;             // of the layer
  precision::QuantSpec rowwise, columnwise;  // the tensor's; one may be unquantized
  int reads = 1;                             // of the tensor: another one where an amax comes first
  double source_bytes = 2;                   // of an element
  double count = 0;

  double elements() const { return static_cast<double>(rows) * static_cast<double>(cols); }
};

// A loop over elements: `launches` operations that together go over so many and move `bytes`, per
// step.
struct MemoryWork {
  std::string_view phase;  // of step_time_report.md section 3.2
  StepPart part = StepPart::kForward;
  ElementOp op = ElementOp::kNormForward;
  double elements = 0;
  double bytes = 0, launches = 0;
};

struct StepWork {
  int ranks = 1, tensor = 1, data = 1;
  double micros = 1;       // micro-batches of this rank
  int64_t tokens = 0;      // of a micro-batch
  double step_tokens = 0;  // of all ranks
  ProductFormat compute = ProductFormat::kBf16;
  double element_bytes = 2;  // of weights and activations
  std::vector<ProductWork> products;
  std::vector<QuantizeWork> quantizations;
  std::vector<MemoryWork> passes;
  // Over the causal triangle, per step; the bytes of q, k, v, o and their gradients.
  double attention_forward_flops = 0, attention_backward_flops = 0;
  double attention_forward_bytes = 0, attention_backward_bytes = 0, attention_calls = 0;
  double attention_triangles = 0;  // of T queries and keys: layers, heads and sequences
  int64_t seq_len = 0, head_dim = 0;
  // Parameters that this rank holds, those of the embeddings among them, and those it updates.
  double parameters = 0, embedding_parameters = 0, owned_parameters = 0;
  // Model flops of the step on each rank, a multiply-add being two (flops_per_token).
  double causal_flops = 0, full_flops = 0;
};

// In a phase of the recipe's plan; without one, in that which most steps are in. The ranks can
// share the run (rank_check.h), the vocabulary is known.
StepWork step_work(const Config& config, int n_ranks, const PrecisionPhase& phase);
StepWork step_work(const Config& config, int n_ranks);

// Bytes of an element with its share of the scales, as a product reads it.
double bytes_per_element(const precision::QuantSpec& spec, double compute_bytes);

// Of one product: both operands, read once, with their scales, and its output. decoded: operands
// are in the compute type, whatever they were rounded to.
double product_bytes(const ProductWork& work, double compute_bytes, bool decoded);

// Of one call of a quantizer on a machine, that computes in `compute` what it does not multiply as
// it is: reads of the tensor, and its operands as they are laid out (stored_operands), codes with
// the scales of their blocks or decoded values.
struct PassBytes {
  double read = 0, written = 0;
};
PassBytes quantize_bytes(const QuantizeWork& work, const MachineModel& machine,
                         ProductFormat compute);

}  // namespace qstep::trainer
