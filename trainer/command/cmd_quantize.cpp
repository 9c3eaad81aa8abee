// qstep quantize: any quantizer on a matrix of the user's, into a file that says everything.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ops/quantize/forward_source.h"
#include "trainer/backend/emulation.h"
#include "trainer/base/format.h"
#include "trainer/command/commands.h"
#include "trainer/config/recipe_fields.h"
#include "trainer/config/recipe_file.h"
#include "trainer/model/linear_operands.h"
#include "trainer/quantizers/quantize_matrix.h"
#include "trainer/quantizers/quantized_file.h"

namespace qstep::trainer {

namespace {

using ops::Error;
using ops::ExitCode;
using ops::Orientation;
using ops::Tensor;
using precision::QuantSpec;
using precision::Source;
using Json = nlohmann::ordered_json;

struct Arguments {
  std::map<std::string, std::string> fields;  // of a quantizer, by key; "": not given
  std::string orientation, recipe, operand;
  std::string input, output;
  std::string slot{kLinearTensorNames[0]};
  ops::QuantRandom random;
  std::optional<float> delayed_scale;
  bool bf16 = false, as_json = false;
};

template <class Names>
size_t index_of(const Names& names, std::string_view name) {
  return static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
}

// ---- which quantizers -----------------------------------------------------------------------

// A forward operand comes before what is made from it. Sets the slot.
std::vector<MatrixQuantizer> quantizers_of_recipe(Arguments& a) {
  std::map<std::string, std::string> given = a.fields;
  given["orientation"] = a.orientation;
  for (const auto& [key, text] : given) {
    if (text.empty()) continue;
    throw Error(ExitCode::kConfig,
                fmt::format("{} = {} with --recipe: its operand says that, leave one of them out",
                            key, text));
  }
  const precision::Recipe recipe = load_recipe(a.recipe);
  const auto slot =
      static_cast<precision::OperandSlot>(index_of(precision::kOperandSlotNames, a.operand));
  const precision::OperandTable operands = precision::resolved(recipe.operands);
  const QuantSpec& spec = operands[slot];
  if (!spec.quantized()) {
    throw Error(ExitCode::kConfig,
                fmt::format("recipe {} leaves {} in {}: there is nothing to quantize", a.recipe,
                            a.operand, name(recipe.compute)));
  }
  const auto tensor =
      std::find_if(kOperandsOf.begin(), kOperandsOf.end(),
                   [&](const TensorOperands& t) { return t.row == slot || t.column == slot; });
  a.slot = kLinearTensorNames[static_cast<size_t>(tensor - kOperandsOf.begin())];
  if (tensor->row == slot) return {{spec, Orientation::kRowwise}};
  if (spec.source == Source::kHighPrecision) return {{spec, Orientation::kColumnwise}};
  return {{operands[tensor->row], Orientation::kRowwise}, {spec, Orientation::kColumnwise}};
}

// The options alone would take 0x10 and 010 as well.
int decimal(const std::string& key, const std::string& text) {
  int value = 0;
  const char* const end = text.data() + text.size();
  const auto [behind, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && behind == end && (text[0] != '0' || text.size() == 1)) return value;
  throw Error(ExitCode::kConfig,
              fmt::format("{} = {} is not a decimal number: write one such as 16", key, text));
}

std::vector<MatrixQuantizer> quantizers_of_options(const Arguments& a) {
  QuantSpec spec;
  const auto read = [&](const std::string& key, auto& field) {
    using Field = std::decay_t<decltype(field)>;
    const auto given = a.fields.find(key);
    if (given == a.fields.end() || given->second.empty()) return;
    if constexpr (std::is_same_v<Field, int>) {
      field = decimal(key, given->second);
    } else {
      for (const auto& [text, value] : names_of(Field{})) {
        if (text == given->second) field = value;
      }
    }
  };
  read("format", spec.format);
  spec = precision::default_spec(spec.format);
  for_each_field(spec, read);
  if (!spec.quantized()) {
    throw Error(ExitCode::kConfig,
                "nothing to quantize to: write a --format other than bf16, or --recipe and "
                "--operand");
  }
  const std::vector<std::string> problems = precision::problems(spec);
  if (!problems.empty()) {
    throw Error(ExitCode::kConfig,
                fmt::format("{} cannot be made:\n  {}", precision::describe(spec),
                            fmt::join(problems, "\n  ")));
  }
  if (a.orientation == "both") {
    return {{spec, Orientation::kRowwise}, {spec, Orientation::kColumnwise}};
  }
  return {{spec, a.orientation == "column" ? Orientation::kColumnwise : Orientation::kRowwise}};
}

// ---- what cannot be -------------------------------------------------------------------------

// The file is written as a whole in place of what was there: the source would be gone.
void check_output(const Arguments& a) {
  std::error_code missing;  // then they are not the same
  if (!std::filesystem::equivalent(a.input, a.output, missing)) return;
  throw Error(ExitCode::kConfig,
              fmt::format("--output {} is the file of --input {}: write another --output", a.output,
                          a.input));
}

void check_delayed_scale(const Arguments& a, const std::vector<MatrixQuantizer>& quantizers) {
  const bool used = std::any_of(quantizers.begin(), quantizers.end(), [](const auto& quantizer) {
    return quantizer.spec.amax == precision::AmaxScope::kDelayed;
  });
  if (!a.delayed_scale || used) return;
  throw Error(ExitCode::kConfig,
              fmt::format("--delayed-scale {}: {} takes its scale from the matrix: add --amax "
                          "delayed, or leave --delayed-scale out",
                          *a.delayed_scale, precision::describe(quantizers.back().spec)));
}

// ---- what is printed ------------------------------------------------------------------------

Json to_json(const QuantizedMatrix& m) {
  const ops::QuantStats& s = m.stats;
  return {{"operand", name_of(m.q.orientation)},
          {"quantizer", precision::describe(m.q.spec)},
          {"emulated", kQuantizedEmulated},
          {"rows", m.encoded.rows},
          {"k", m.encoded.k},
          {"amax", s.amax},
          {"factor", tensor_factor(m.q)},
          {"elements", s.elements},
          {"underflowed", s.underflowed},
          {"saturated", s.saturated},
          {"non_finite", s.non_finite},
          {"blocks", s.blocks},
          {"zero_scales", s.zero_scales},
          {"snr_db", m.snr_db()},
          {"gb_per_s", m.gb_per_s}};
}

std::string share(double n, double of) {
  return n == 0 ? "0" : fmt::format("{} ({:.3g} %)", with_commas(std::llround(n)), 100 * n / of);
}

void print_text(const QuantizedMatrix& m) {
  const ops::QuantStats& s = m.stats;
  const auto line = [](std::string_view key, const std::string& value) {
    fmt::print("  {:<12} {}\n", key, value);
  };
  fmt::print("{:<14} {} ({})\n", name_of(m.q.orientation), precision::describe(m.q.spec),
             emulation_text(kQuantizedEmulated));
  line("shape", fmt::format("[{}, {}]", with_commas(m.encoded.rows), with_commas(m.encoded.k)));
  line("amax", fmt::format("{:.6g}", s.amax));
  line("factor", m.q.tile_scales
                     ? fmt::format("{} tile scales", with_commas(m.q.tile_scales.size()))
                     : fmt::format("{:.6g}", tensor_factor(m.q)));
  line("underflowed", share(s.underflowed, s.elements));
  line("saturated", share(s.saturated, s.elements));
  line("non-finite", share(s.non_finite, s.elements));
  if (s.blocks > 0) line("zero scales", share(s.zero_scales, s.blocks));
  line("SNR", fmt::format("{:.2f} dB", m.snr_db()));
  line("speed", fmt::format("{:.2f} GB/s (source read, decoded values written)", m.gb_per_s));
}

// ---- the run --------------------------------------------------------------------------------

void run(Arguments a) {
  const std::vector<MatrixQuantizer> quantizers =
      a.recipe.empty() ? quantizers_of_options(a) : quantizers_of_recipe(a);
  check_output(a);
  check_delayed_scale(a, quantizers);
  a.random = quant_random(a.random.seed, a.random.step, a.random.micro_batch, a.random.module,
                          static_cast<LinearTensor>(index_of(kLinearTensorNames, a.slot)));
  float delayed_scale = a.delayed_scale.value_or(1.0f);
  ops::QuantCall call;
  call.random = a.random;
  call.delayed_scale = ops::matrix(&delayed_scale, ops::Dtype::kF32, 1, 1);

  const Matrix source = read_matrix(a.input, a.bf16);
  const Tensor& x = source.tensor;
  for (const MatrixQuantizer& quantizer : quantizers) check_shape(quantizer, x, a.input);
  QuantizedFile file(a.output);
  file.add(QuantizedSource{a.input, x}, a.random);
  Json json = {{"input", a.input},           {"rows", x.rows},     {"cols", x.cols},
               {"type", ops::name(x.dtype)}, {"output", a.output}, {"operands", Json::array()}};
  if (!a.as_json) {
    fmt::print("{:<14} {} [{}, {}] {}\n", "source", a.input, with_commas(x.rows),
               with_commas(x.cols), ops::name(x.dtype));
  }
  std::optional<ops::ForwardSource> forward;
  for (size_t i = 0; i < quantizers.size(); ++i) {
    QuantizedMatrix made = quantize_matrix(
        quantizers[i], forward ? ops::view(std::span(forward->values), x.rows, x.cols) : x, call);
    if (forward && made.q.scale) {
      made.encoded.scale = *made.q.scale.as<float>() *= forward->factor;
    }
    file.add(QuantizedOperand{made.q, made.encoded, made.stats});
    if (a.as_json) {
      json["operands"].push_back(to_json(made));
    } else {
      print_text(made);
    }
    const bool made_from =
        i + 1 < quantizers.size() && quantizers[i + 1].spec.source == Source::kForward;
    if (made_from) forward = ops::forward_source(made.q, quantizers[i + 1].spec);
  }
  file.finish();
  if (a.as_json) {
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print("{:<14} {}\n", "written", a.output);
  }
}

// One option per field of a quantizer, with the names that the field knows.
void add_spec_options(CLI::App& command, Arguments& a) {
  QuantSpec spec;
  for_each_field(spec, [&](const std::string& key, auto& field) {
    if (key == "source") return;  // of a recipe's operand: there must be a forward one
    using Field = std::decay_t<decltype(field)>;
    std::string flag = "--" + key;
    std::replace(flag.begin() + 2, flag.end(), '_', '-');
    CLI::Option* const option = command.add_option(flag, a.fields[key]);
    option->group("The quantizer (what is left out is its format's default)");
    if constexpr (std::is_same_v<Field, int>) {
      option->check(CLI::Range(0, 1 << 16));
    } else {
      std::vector<std::string> names;
      for (const auto& [text, value] : names_of(Field{})) names.emplace_back(text);
      option->check(CLI::IsMember(names));
    }
  });
}

template <class Names>
CLI::IsMember one_of(const Names& names) {
  return CLI::IsMember(std::vector<std::string>(names.begin(), names.end()));
}

}  // namespace

void add_quantize_command(CLI::App& app, int&) {
  const auto a = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "quantize", "Quantize a matrix from a .npy file: codes, scales and decoded values as HDF5");
  command->add_option("--input", a->input, ".npy file, float32")->required();
  command->add_flag("--bf16", a->bf16, "The input is bfloat16, as 16-bit words");
  command->add_option("-o,--output", a->output, "HDF5 file to write")->required();
  command
      ->add_option("--orientation", a->orientation,
                   "Sum along the rows (the default), the columns, or one operand of each")
      ->check(one_of(std::vector<std::string>{"row", "column", "both"}));
  add_spec_options(*command, *a);

  CLI::Option* recipe = command->add_option("--recipe", a->recipe, "Name or file of a recipe");
  CLI::Option* operand = command->add_option("--operand", a->operand, "Which of its operands")
                             ->check(one_of(precision::kOperandSlotNames));
  for (CLI::Option* option : {recipe, operand}) option->group("Or a recipe's quantizer");
  recipe->needs(operand);
  operand->needs(recipe);

  const std::string random = "Random bits and scales from a run";
  command->add_option("--seed", a->random.seed, "Seed")->group(random)->capture_default_str();
  command->add_option("--step", a->random.step, "Step")->group(random)->capture_default_str();
  command
      ->add_option("--micro-batch", a->random.micro_batch,
                   "Micro-batch of the step, from 0; w is quantized once for all")
      ->group(random)
      ->capture_default_str();
  command->add_option("--module", a->random.module, "Number of the linear layer, from 0")
      ->group(random)
      ->check(CLI::Range(0, (1 << 24) - 1))
      ->capture_default_str();
  command->add_option("--slot", a->slot, "Tensor of the layer; an operand of a recipe says it")
      ->group(random)
      ->check(one_of(kLinearTensorNames))
      ->capture_default_str();
  command
      ->add_option("--delayed-scale", a->delayed_scale,
                   "The scale that --amax delayed uses, 1 if not given")
      ->group(random)
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", a->as_json, "Print JSON");
  command->footer(
      "Examples:\n"
      "  qstep quantize --format nvfp4 --rounding stochastic --hadamard 16 --input x.npy -o q.h5\n"
      "  qstep quantize --recipe nvfp4 --operand dy_wgrad --bf16 --input dy.npy -o q.h5");
  command->callback([a] { run(*a); });
}

}  // namespace qstep::trainer
