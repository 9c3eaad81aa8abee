// A precision recipe as typed data: which quantizer makes which operand of which GEMM, in which
// layer, at which step. recipes/*.toml are its text form (trainer/recipe_file.h).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "precision/quant_spec.h"

namespace qstep::precision {

// The six operands of the three GEMMs of a linear layer, in the order of the tables (numerics 7.1).
//   fprop  y  [N,O] = x_fprop w_fprop^T
//   dgrad  dx [N,I] = dy_dgrad w_dgrad^T
//   wgrad  dw [O,I] = dy_wgrad x_wgrad^T
enum class OperandSlot : uint8_t { kXFprop, kWFprop, kDyDgrad, kWDgrad, kDyWgrad, kXWgrad };
inline constexpr int kOperandSlots = 6;
inline constexpr std::array<std::string_view, kOperandSlots> kOperandSlotNames{
    "x_fprop", "w_fprop", "dy_dgrad", "w_dgrad", "dy_wgrad", "x_wgrad"};

struct OperandTable {
  std::array<QuantSpec, kOperandSlots> specs;  // all bf16 by default

  const QuantSpec& operator[](OperandSlot slot) const { return specs[static_cast<size_t>(slot)]; }
  QuantSpec& operator[](OperandSlot slot) { return specs[static_cast<size_t>(slot)]; }
  friend bool operator==(const OperandTable&, const OperandTable&) = default;
  bool quantized() const {
    for (const QuantSpec& spec : specs) {
      if (spec.quantized()) return true;
    }
    return false;
  }
};

enum class ComputeType : uint8_t { kFp32, kBf16 };  // of weights and activations between the GEMMs

// Delayed scaling (numerics 7.2).
enum class DelayedAlgo : uint8_t { kMax, kMostRecent };
struct DelayedScaling {
  int64_t history = 1024;  // steps
  DelayedAlgo algo = DelayedAlgo::kMax;
  int64_t margin = 0;  // scale = max * 2^-margin / amax
};

// Operands that layers with a matching name get instead; later ones win. '*' matches any text.
struct LayerOverride {
  std::string layers;  // "blocks.*.down"
  std::array<bool, kOperandSlots> given{};
  OperandTable operands;
};

// From a step on, other operands in every layer; later ones win.
struct RecipeSwitch {
  int64_t from_step = 0;     // 1-based step; 0: given as a fraction
  double from_fraction = 0;  // of train.steps, in (0, 1)
  std::array<bool, kOperandSlots> given{};
  OperandTable operands;
};

struct Recipe {
  std::string name;
  std::string title;     // one line: what it is
  std::string paper;     // arXiv id or specification
  std::string good_for;  // one or two lines
  std::string measured;  // loss gap and step time, as measured; "" when nobody did
  ComputeType compute = ComputeType::kBf16;
  OperandTable operands;
  DelayedScaling delayed;
  int64_t keep_first = 0;  // blocks at either end whose linear layers stay in BF16
  int64_t keep_last = 0;
  std::vector<std::string> keep;  // linear layers by name, "blocks.*.attn_out"; the head always is
  std::vector<LayerOverride> overrides;
  std::vector<RecipeSwitch> switches;

  bool quantized() const;
};

// A linear layer as a recipe sees it: "blocks.3.qkv", its block and the number of blocks.
struct LayerName {
  std::string name;
  int64_t block = 0;
  int64_t n_blocks = 0;
};

// What runs in this layer at this step (from 1) of a run of `n_steps`.
OperandTable operands_at(const Recipe& recipe, const LayerName& layer, int64_t step,
                         int64_t n_steps);

// The steps, ascending and without repeats, at which operands_at may change; the first is 1.
std::vector<int64_t> phase_starts(const Recipe& recipe, int64_t n_steps);

}  // namespace qstep::precision
