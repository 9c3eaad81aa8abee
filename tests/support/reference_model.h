// The decoder once more, as plainly as it can be written: FP64, one loop after another, no code of
// the product but the struct that holds the dimensions. Tests hold the product against it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/support/reference_layers.h"

namespace qstep::test {

// By the names of checkpoints ("blocks.0.qkv.weight"), without vocabulary padding.
using Weights = std::map<std::string, Matrix>;

// Zeros of every weight's shape.
Weights zero_weights(const trainer::ModelConfig& model);

struct Batch {
  int64_t batch = 0, seq_len = 0;        // B, T
  std::vector<int32_t> tokens, targets;  // [B, T]
};

struct ReferenceResult {
  double loss = 0;  // mean over the targets, nats
  Matrix logits;    // [N, V]
  Weights grads;    // of the mean loss; empty after reference_forward
};

ReferenceResult reference_forward(const trainer::ModelConfig& model, const Weights& weights,
                                  const Batch& batch, Rounding rounding = {});
ReferenceResult reference_forward_backward(const trainer::ModelConfig& model,
                                           const Weights& weights, const Batch& batch,
                                           Rounding rounding = {});

// AdamW as Loshchilov and Hutter's algorithm 2 has it, no clipping. Decay acts on matrices.
struct ReferenceAdamW {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  Weights m, v;  // empty: zero
  int64_t t = 0;
  void update(Weights& weights, const Weights& grads, double lr);
};

}  // namespace qstep::test
