#include "precision/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace qstep::precision {

namespace {

void replace(OperandTable& operands, const std::array<bool, kOperandSlots>& given,
             const OperandTable& by) {
  for (size_t slot = 0; slot < kOperandSlots; ++slot) {
    if (given[slot]) operands.specs[slot] = by.specs[slot];
  }
}

std::string_view slot_name(OperandSlot slot) {
  return kOperandSlotNames[static_cast<size_t>(slot)];
}

bool is_delayed(const QuantSpec& spec) { return spec.amax == AmaxScope::kDelayed; }

template <class F>
bool any_spec(const Recipe& recipe, F&& f) {
  const auto any = [&](const OperandTable& table) {
    return std::any_of(table.specs.begin(), table.specs.end(), f);
  };
  const auto any_of = [&](const auto& list) {
    return std::any_of(list.begin(), list.end(), [&](const auto& e) { return any(e.operands); });
  };
  return any(recipe.operands) || any_of(recipe.overrides) || any_of(recipe.switches);
}

}  // namespace

int64_t BlockCount::of(int64_t n_blocks) const {
  if (fraction <= 0) return std::min(n, n_blocks);
  const auto rounded = std::llround(fraction * static_cast<double>(n_blocks));
  return std::max<int64_t>(1, rounded);
}

int64_t RecipeSwitch::first_step(int64_t n_steps) const {
  if (from_step > 0) return from_step;
  // 0.29 * 100 is a little less than 29 in binary.
  constexpr double kBinaryError = 1e-6;
  return static_cast<int64_t>(
             std::floor(from_fraction * static_cast<double>(n_steps) + kBinaryError)) +
         1;
}

bool Recipe::quantized() const {
  return any_spec(*this, [](const QuantSpec& spec) { return spec.quantized(); });
}

bool Recipe::has_delayed() const { return any_spec(*this, is_delayed); }

bool matches(std::string_view pattern, std::string_view text) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == text;
  if (!text.starts_with(pattern.substr(0, star))) return false;
  const std::string_view rest = pattern.substr(star + 1);
  for (size_t at = star; at <= text.size(); ++at) {
    if (matches(rest, text.substr(at))) return true;
  }
  return false;
}

bool kept(const Recipe& recipe, const LayerName& layer) {
  return layer.block < recipe.keep_first.of(layer.n_blocks) ||
         layer.block >= layer.n_blocks - recipe.keep_last.of(layer.n_blocks) ||
         std::any_of(recipe.keep.begin(), recipe.keep.end(),
                     [&](const std::string& pattern) { return matches(pattern, layer.name); });
}

OperandTable resolved(OperandTable operands) {
  for (const TensorOperands& tensor : kOperandsOf) {
    if (tensor.has_forward() && !operands[tensor.row].quantized()) {
      operands[tensor.column].source = Source::kHighPrecision;
    }
  }
  return operands;
}

OperandTable operands_at(const Recipe& recipe, const LayerName& layer, int64_t step,
                         int64_t n_steps) {
  if (kept(recipe, layer)) return {};
  OperandTable operands = recipe.operands;
  for (const LayerOverride& o : recipe.overrides) {
    if (matches(o.layers, layer.name)) replace(operands, o.given, o.operands);
  }
  for (const RecipeSwitch& s : recipe.switches) {
    if (step >= s.first_step(n_steps)) replace(operands, s.given, s.operands);
  }
  return resolved(operands);
}

std::vector<int64_t> phase_starts(const Recipe& recipe, int64_t n_steps) {
  std::vector<int64_t> starts{1};
  for (const RecipeSwitch& s : recipe.switches) {
    const int64_t step = s.first_step(n_steps);
    if (step <= n_steps) starts.push_back(step);
  }
  std::sort(starts.begin(), starts.end());
  starts.erase(std::unique(starts.begin(), starts.end()), starts.end());
  return starts;
}

std::vector<OperandProblem> problems(OperandSlot slot, const QuantSpec& spec, ComputeType compute) {
  std::vector<OperandProblem> list;
  for (const std::string& text : problems(spec)) list.push_back({slot, text});
  const bool has_forward =
      std::any_of(kOperandsOf.begin(), kOperandsOf.end(),
                  [&](const TensorOperands& t) { return t.has_forward() && t.column == slot; });
  if (spec.source == Source::kForward && !has_forward) {
    list.push_back({slot,
                    "source = \"forward\" is for w_dgrad and x_wgrad, the backward copies of "
                    "what the forward pass read"});
  }
  if (compute == ComputeType::kFp32 && spec.quantized()) {
    list.push_back(
        {slot, fmt::format("{} goes with compute = \"bf16\", not \"fp32\"", name(spec.format))});
  }
  if (slot == OperandSlot::kXFprop && spec.block.square()) {
    list.push_back({slot,
                    "generation feeds one token at a time, which fills no square block: write a "
                    "block of one row"});
  }
  return list;
}

std::vector<OperandProblem> problems(const OperandTable& operands, ComputeType compute) {
  std::vector<OperandProblem> list;
  for (size_t i = 0; i < kOperandSlots; ++i) {
    const auto of_one = problems(static_cast<OperandSlot>(i), operands.specs[i], compute);
    list.insert(list.end(), of_one.begin(), of_one.end());
  }
  for (const TensorOperands& tensor : kOperandsOf) {
    if (!tensor.has_forward()) continue;
    const QuantSpec &from = operands[tensor.row], &spec = operands[tensor.column];
    if (spec.source != Source::kForward || !spec.quantized()) continue;
    if (spec.amax == AmaxScope::kDelayed) {
      list.push_back({tensor.column, "a delayed scale does not go with source = \"forward\""});
    } else if (has_tensor_scale(from) && !has_tensor_scale(spec)) {
      list.push_back({tensor.column,
                      fmt::format("source = \"forward\" hands on the scale of the tensor that {} "
                                  "({}) has and {} lacks: leave source out",
                                  slot_name(tensor.row), describe(from), describe(spec))});
    }
  }
  for (const GemmOperands& gemm : kGemms) {
    const QuantSpec &a = operands[gemm.left], &b = operands[gemm.right];
    if (a.hadamard == b.hadamard && a.signs == b.signs) continue;
    list.push_back(
        {gemm.left,
         fmt::format("its Hadamard transform ({}) and that of {} ({}) do not cancel in {}: "
                     "give both the same hadamard and signs, or neither",
                     describe(a), slot_name(gemm.right), describe(b), gemm.name)});
  }
  for (size_t t = 0; t < kOperandsOf.size(); ++t) {
    const TensorOperands& tensor = kOperandsOf[t];
    const QuantSpec &a = operands[tensor.row], &b = operands[tensor.column];
    if (!is_delayed(a) || !is_delayed(b) || a.format == b.format) continue;
    list.push_back({tensor.row,
                    fmt::format("a delayed scale is one for all of {}, but here it is {} and {} is "
                                "{}: give both the same format",
                                kLinearTensorNames[t], name(a.format), slot_name(tensor.column),
                                name(b.format))});
  }
  return list;
}

}  // namespace qstep::precision
