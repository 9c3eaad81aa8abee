// A precision recipe as typed data: which quantizer makes which operand of which GEMM, in which
// layer, at which step. recipes/*.toml are its text form (trainer/config/recipe_file.h).
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

// The GEMMs with their operands. A number of the enum is the GEMM's in Hadamard signs.
enum Gemm : uint32_t { kFprop, kDgrad, kWgrad };
struct GemmOperands {
  std::string_view name;
  OperandSlot left, right;
};
inline constexpr std::array<GemmOperands, 3> kGemms{
    {{"fprop", OperandSlot::kXFprop, OperandSlot::kWFprop},
     {"dgrad", OperandSlot::kDyDgrad, OperandSlot::kWDgrad},
     {"wgrad", OperandSlot::kDyWgrad, OperandSlot::kXWgrad}}};

// The tensors of a linear layer, in the order of their slots in random bits (numerics 4.3).
enum class LinearTensor : uint8_t { kX, kW, kDy };
inline constexpr std::array<std::string_view, 3> kLinearTensorNames{"x", "w", "dy"};

// The two operands of a tensor, as it lies and turned, and the GEMMs that read them.
struct TensorOperands {
  OperandSlot row, column;
  Gemm row_gemm, column_gemm;
  // The column operand belongs to the backward pass and may be made from what the row one became.
  bool has_forward() const { return row_gemm == kFprop; }
};
inline constexpr std::array<TensorOperands, 3> kOperandsOf{
    // by LinearTensor
    {{OperandSlot::kXFprop, OperandSlot::kXWgrad, kFprop, kWgrad},
     {OperandSlot::kWFprop, OperandSlot::kWDgrad, kFprop, kDgrad},
     {OperandSlot::kDyDgrad, OperandSlot::kDyWgrad, kDgrad, kWgrad}}};

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
  friend bool operator==(const DelayedScaling&, const DelayedScaling&) = default;
};

inline constexpr std::array kComputeTypeNames{Name<ComputeType>{"fp32", ComputeType::kFp32},
                                              Name<ComputeType>{"bf16", ComputeType::kBf16}};
inline constexpr std::array kDelayedAlgoNames{
    Name<DelayedAlgo>{"max", DelayedAlgo::kMax},
    Name<DelayedAlgo>{"most-recent", DelayedAlgo::kMostRecent}};
constexpr const auto& names_of(ComputeType) { return kComputeTypeNames; }
constexpr const auto& names_of(DelayedAlgo) { return kDelayedAlgoNames; }

// Blocks at one end of the model: a number, or a share of them, rounded to the nearest and at least
// one block.
struct BlockCount {
  int64_t n = 0;
  double fraction = 0;  // in (0, 1); 0: n counts
  friend bool operator==(const BlockCount&, const BlockCount&) = default;
  int64_t of(int64_t n_blocks) const;
};

// Operands that layers with a matching name get instead; later ones win. '*' matches any text.
struct LayerOverride {
  std::string layers;  // "blocks.*.down"
  std::array<bool, kOperandSlots> given{};
  OperandTable operands;
  friend bool operator==(const LayerOverride&, const LayerOverride&) = default;
};

// From a step on, other operands in every layer that is not kept; later ones win.
struct RecipeSwitch {
  int64_t from_step = 0;     // 1-based step; 0: given as a fraction
  double from_fraction = 0;  // of train.steps, in (0, 1): what is behind floor(fraction steps)
  std::array<bool, kOperandSlots> given{};
  OperandTable operands;
  friend bool operator==(const RecipeSwitch&, const RecipeSwitch&) = default;
  int64_t first_step(int64_t n_steps) const;
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
  BlockCount keep_first, keep_last;  // blocks whose linear layers stay in the compute type
  std::vector<std::string> keep;  // linear layers by name, "blocks.*.attn_out"; the head always is
  std::vector<LayerOverride> overrides;
  std::vector<RecipeSwitch> switches;

  friend bool operator==(const Recipe&, const Recipe&) = default;
  bool quantized() const;    // any operand of any layer at any time
  bool has_delayed() const;  // any operand has delayed scaling
};

// A linear layer as a recipe sees it: "blocks.3.qkv", its block and the number of blocks.
struct LayerName {
  std::string name;
  int64_t block = 0;
  int64_t n_blocks = 0;
};

// Whether `text` fits the pattern, in which '*' stands for any text.
bool matches(std::string_view pattern, std::string_view text);

// Whether the layer stays in the compute type throughout.
bool kept(const Recipe& recipe, const LayerName& layer);

// The operands as they run: the source of one whose forward operand is not quantized is the tensor
// itself.
OperandTable resolved(OperandTable operands);

// What runs in this layer at this step (from 1) of a run of `n_steps`: the recipe's operands, then
// the overrides, then the switches, resolved; a kept layer takes part in none of them.
OperandTable operands_at(const Recipe& recipe, const LayerName& layer, int64_t step,
                         int64_t n_steps);

// The steps, ascending and without repeats, at which operands_at may change; the first is 1.
std::vector<int64_t> phase_starts(const Recipe& recipe, int64_t n_steps);

struct OperandProblem {
  OperandSlot slot = OperandSlot::kXFprop;
  std::string text;
  friend bool operator==(const OperandProblem&, const OperandProblem&) = default;
};

// What is impossible in one operand, whatever the others are: fields that do not go together
// (problems(QuantSpec)), and fields that this operand cannot have.
std::vector<OperandProblem> problems(OperandSlot slot, const QuantSpec& spec, ComputeType compute);

// What is impossible in the six operands of one layer: in each of them, and GEMMs whose Hadamard
// transforms do not cancel (numerics 7.6). Empty when it can run.
std::vector<OperandProblem> problems(const OperandTable& operands, ComputeType compute);

}  // namespace qstep::precision
