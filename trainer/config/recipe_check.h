// A recipe held against a model and a run: what would run where, and what cannot.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "trainer/config/config.h"
#include "trainer/config/layer_precision.h"

namespace qstep::trainer {

// Everything that keeps config.precision.loaded from running on this model with these
// micro-batches, one text each that names layer, operand, what was found and what to write instead:
// dimensions that are not multiples of the quantizer's unit, patterns that match no layer, operands
// that do not go together once overrides and switches are applied. Empty when it can run.
// For evaluation only what forward passes read counts.
std::vector<std::string> recipe_problems(const Config& config, Purpose purpose);

// Of these the dimensions and the patterns alone: also of a recipe in which some operands could not
// be read (they count as bf16), so that its user hears everything at once.
std::vector<std::string> shape_problems(const Config& config, Purpose purpose);

// The names of linear layers by number (layer_precision.h), ascending, in short:
// "blocks.0-6.*, blocks.7.{qkv,up}".
std::string module_names(const std::vector<int64_t>& modules);

// For texts of problems: "x_fprop (nvfp4 1x16)", and "keep these layers in bf16 in the recipe:
// [keep] layers = [...]".
std::string operand_text(precision::OperandSlot slot, const precision::QuantSpec& spec);
std::string keep_advice(const std::set<int64_t>& modules);

}  // namespace qstep::trainer
