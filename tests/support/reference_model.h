// The decoder once more, as plainly as it can be written: FP64, one loop after another, no code of
// the product but the struct that holds the dimensions. Tests hold the product against it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "trainer/config/model_config.h"

namespace qstep::test {

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<double> v;  // row by row

  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), v(static_cast<size_t>(r * c), 0.0) {}
  double& at(int64_t r, int64_t c) { return v[static_cast<size_t>(r * cols + c)]; }
  double at(int64_t r, int64_t c) const { return v[static_cast<size_t>(r * cols + c)]; }
};

// By the names of checkpoints ("blocks.0.qkv.weight"), without vocabulary padding.
using Weights = std::map<std::string, Matrix>;

// Zeros of every weight's shape.
Weights zero_weights(const trainer::ModelConfig& model);

// Imitates a computation in lower precision, to find out how far its errors can carry: what would
// be stored is off by up to `store` of its size, and a sum of k terms by up to sqrt(k sum term^2)
// `add` (k roundings of independent sign). Without arguments: FP64 and nothing else.
class Rounding {
 public:
  Rounding() = default;
  Rounding(double add, double store, uint64_t seed) : add_(add), store_(store), state_(seed) {}

  double stored(double x) { return store_ == 0 ? x : x * (1 + store_ * next()); }
  double summed(double sum, double squares, int64_t terms);
  // The same arithmetic with what is kept in FP32 whatever the type of the activations.
  double stored_fp32(double x) { return add_ == 0 ? x : x * (1 + add_ * next()); }

 private:
  double next();  // uniform in [-1, 1)

  double add_ = 0, store_ = 0;
  uint64_t state_ = 0;
};

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
