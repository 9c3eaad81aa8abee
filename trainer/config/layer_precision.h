// A recipe applied to a model and a run: which quantizers run in which linear layer, from which
// step on.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "precision/recipe.h"
#include "trainer/config/config.h"

namespace qstep::trainer {

enum class Purpose : uint8_t { kTraining, kEvaluation };

// The linear layers of a block, in the order of the forward pass.
enum class LinearKind : uint8_t { kQkv, kAttnOut, kUp, kDown };
inline constexpr std::array<std::string_view, 4> kLinearNames{"qkv", "attn_out", "up", "down"};
inline constexpr auto kLinearsPerBlock = static_cast<int64_t>(kLinearNames.size());

// Linear layers are numbered block by block: the module id of random bits (numerics 4.3), of
// delayed scales and of the ledger.
constexpr int64_t module_id(int64_t block, LinearKind kind) {
  return block * kLinearsPerBlock + static_cast<int64_t>(kind);
}
inline int64_t n_modules(const ModelConfig& model) { return model.n_layers * kLinearsPerBlock; }

// A norm or an activation, or the gradient of one, makes the tensor, and can find its amax as it
// does: x but that of attn_out and dy but that of qkv, which come from attention.
constexpr bool made_with_amax(LinearKind kind, precision::LinearTensor tensor) {
  return tensor == precision::LinearTensor::kX    ? kind != LinearKind::kAttnOut
         : tensor == precision::LinearTensor::kDy ? kind != LinearKind::kQkv
                                                  : false;
}

// "blocks.3.qkv"
std::string module_name(int64_t module);

// y [N, O] = x [N, I] w [O, I]^T
struct LinearShape {
  int64_t out = 0, in = 0;
};
LinearShape linear_shape(const ModelConfig& model, LinearKind kind);
inline LinearShape linear_shape(const ModelConfig& model, int64_t module) {
  return linear_shape(model, static_cast<LinearKind>(module % kLinearsPerBlock));
}

// What runs until the next phase begins.
struct PrecisionPhase {
  int64_t first_step = 1;
  std::vector<precision::OperandTable> tables;  // by module

  // The operands whose scale comes from earlier steps are there.
  bool has_delayed() const;
  // An operand's elements are rounded with random bits.
  bool rounds_stochastically() const;
};

struct PrecisionPlan {
  std::vector<PrecisionPhase> phases;  // the first from step 1 on; none: the plan is plain
  precision::DelayedScaling delayed;
  precision::StochasticRounder rounder = precision::StochasticRounder::kPortable;

  // Nothing is ever quantized: the linear layers compute with the tensors as they are.
  bool plain() const;
  bool has_delayed() const;
  bool rounds_stochastically() const;
  // The phase that holds the step (from 1); the last one beyond the end of the run.
  size_t phase_at(int64_t step) const;
};

// Of the configuration's recipe over its train.steps.
PrecisionPlan plan_precision(const Config& config);

}  // namespace qstep::trainer
