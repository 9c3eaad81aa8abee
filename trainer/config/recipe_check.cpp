#include "trainer/config/recipe_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "trainer/base/nearest.h"
#include "trainer/config/config_options.h"
#include "trainer/config/layer_precision.h"

namespace qstep::trainer {

namespace {

using precision::kOperandSlotNames;
using precision::kOperandSlots;
using precision::OperandSlot;
using precision::QuantSpec;

// A dimension of a GEMM and the option that decides it: size = option_value * factor.
struct Dimension {
  std::string_view what, option;
  int64_t option_value = 0;
  int64_t factor = 1;
  int64_t size() const { return option_value * factor; }
};

Dimension tokens_of(const TrainConfig& t) {
  return {"tokens of a micro-batch", "train.seq_len", t.seq_len, t.micro_batch};
}

Dimension inputs_of(const ModelConfig& m, LinearKind kind) {
  switch (kind) {
    case LinearKind::kAttnOut:
      return {"input features", "model.head_dim", m.head_dim, m.n_heads};
    case LinearKind::kDown:
      return {"input features", "model.ffn_width", m.ffn_width, 1};
    default:
      return {"input features", "model.width", m.width, 1};
  }
}

Dimension outputs_of(const ModelConfig& m, LinearKind kind) {
  switch (kind) {
    case LinearKind::kQkv:
      return {"output features", "model.head_dim", m.head_dim, m.n_heads + 2 * m.n_kv_heads};
    case LinearKind::kUp:
      return {"output features", "model.ffn_width", m.ffn_width, m.up_width() / m.ffn_width};
    default:
      return {"output features", "model.width", m.width, 1};
  }
}

// The operand's rows and the dimension that its GEMM sums over (precision/recipe.h).
struct OperandDimensions {
  Dimension rows, k;
};
OperandDimensions dimensions_of(OperandSlot slot, const Config& c, LinearKind kind) {
  const Dimension n = tokens_of(c.train), in = inputs_of(c.model, kind),
                  out = outputs_of(c.model, kind);
  switch (slot) {
    case OperandSlot::kXFprop:
      return {n, in};
    case OperandSlot::kWFprop:
      return {out, in};
    case OperandSlot::kDyDgrad:
      return {n, out};
    case OperandSlot::kWDgrad:
      return {in, out};
    case OperandSlot::kDyWgrad:
      return {out, n};
    case OperandSlot::kXWgrad:
      return {in, n};
  }
  return {};
}

// One dimension that does not fit, with all layers and operands that it stops.
struct Misfit {
  Dimension dimension;
  int64_t multiple = 1;
  std::set<int64_t> modules;
  std::vector<std::string> operands;  // "x_fprop (nvfp4 1x16)"

  bool same(const Dimension& d, int64_t m) const {
    return dimension.what == d.what && dimension.option == d.option &&
           dimension.factor == d.factor && multiple == m;
  }
};

class Misfits {
 public:
  void add(const Dimension& d, int64_t multiple, int64_t module, OperandSlot slot,
           const QuantSpec& spec) {
    if (d.size() % multiple == 0) return;
    auto found = std::find_if(list_.begin(), list_.end(),
                              [&](const Misfit& m) { return m.same(d, multiple); });
    if (found == list_.end()) {
      found = list_.insert(list_.end(), Misfit{d, multiple, {}, {}});
    }
    found->modules.insert(module);
    const std::string operand = operand_text(slot, spec);
    if (std::find(found->operands.begin(), found->operands.end(), operand) ==
        found->operands.end()) {
      found->operands.push_back(operand);
    }
  }

  std::vector<std::string> texts() const {
    std::vector<std::string> texts;
    for (const Misfit& m : list_) texts.push_back(text(m));
    return texts;
  }

 private:
  static std::string text(const Misfit& m) {
    const Dimension& d = m.dimension;
    const int64_t step = m.multiple / std::gcd(m.multiple, d.factor);
    const std::string values = multiples_around(d.option_value, step);
    return fmt::format(
        "{} = {}: {} of {} need {} in multiples of {}, found {}: write {} = {}, or {}", d.option,
        d.option_value, fmt::join(m.operands, ", "),
        module_names({m.modules.begin(), m.modules.end()}), d.what, m.multiple, d.size(), d.option,
        values, keep_advice(m.modules));
  }

  std::vector<Misfit> list_;
};

// Operands that do not go together, with all layers in which they meet.
class Conflicts {
 public:
  void add(int64_t first_step, int64_t module, const precision::OperandProblem& problem) {
    auto found = std::find_if(list_.begin(), list_.end(), [&](const Conflict& c) {
      return c.first_step == first_step && c.problem == problem;
    });
    if (found == list_.end()) found = list_.insert(list_.end(), {first_step, problem, {}});
    found->modules.push_back(module);
  }
  std::vector<std::string> texts() const {
    std::vector<std::string> texts;
    for (const Conflict& c : list_) {
      texts.push_back(
          fmt::format("from step {} on, {} {}: {}", c.first_step, module_names(c.modules),
                      kOperandSlotNames[static_cast<size_t>(c.problem.slot)], c.problem.text));
    }
    return texts;
  }

 private:
  struct Conflict {
    int64_t first_step = 1;
    precision::OperandProblem problem;
    std::vector<int64_t> modules;
  };
  std::vector<Conflict> list_;
};

bool is_read(OperandSlot slot, Purpose purpose) {
  return purpose == Purpose::kTraining || slot == OperandSlot::kXFprop ||
         slot == OperandSlot::kWFprop;
}

void add_new(std::vector<std::string>& list, const std::string& text) {
  if (std::find(list.begin(), list.end(), text) == list.end()) list.push_back(text);
}

// Patterns that no linear layer fits.
void add_idle_patterns(const Config& config, std::vector<std::string>& problems) {
  const precision::Recipe& recipe = config.precision.loaded;
  std::vector<std::string> usual;
  for (const std::string_view name : kLinearNames)
    usual.push_back(fmt::format("blocks.*.{}", name));
  const auto check = [&](std::string_view where, const std::string& pattern) {
    for (int64_t module = 0; module < n_modules(config.model); ++module) {
      if (precision::matches(pattern, module_name(module))) return;
    }
    add_new(problems,
            fmt::format("the recipe's {} {} matches no linear layer of this model: did you mean "
                        "{}? (head and embeddings are never quantized)",
                        where, toml_string(pattern), toml_string(nearest(pattern, usual))));
  };
  for (const std::string& pattern : recipe.keep) check("keep.layers", pattern);
  for (const precision::LayerOverride& o : recipe.overrides) check("override.layers", o.layers);
}

// "0-6" or "7" for a run of numbers.
std::string range_text(int64_t first, int64_t last) {
  return first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
}

}  // namespace

std::string module_names(const std::vector<int64_t>& modules) {
  std::map<int64_t, std::vector<std::string_view>> kinds_of;  // by block
  for (const int64_t module : modules) {
    kinds_of[module / kLinearsPerBlock].push_back(
        kLinearNames[static_cast<size_t>(module % kLinearsPerBlock)]);
  }
  std::vector<std::string> parts;
  for (auto run = kinds_of.begin(); run != kinds_of.end();) {
    auto last = run, next = std::next(run);
    while (next != kinds_of.end() && next->first == last->first + 1 &&
           next->second == run->second) {
      last = next++;
    }
    const auto& kinds = run->second;
    const std::string names = kinds.size() == kLinearNames.size() ? "*"
                              : kinds.size() == 1                 ? std::string(kinds[0])
                                                  : fmt::format("{{{}}}", fmt::join(kinds, ","));
    parts.push_back(fmt::format("blocks.{}.{}", range_text(run->first, last->first), names));
    run = next;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string operand_text(OperandSlot slot, const QuantSpec& spec) {
  return fmt::format("{} ({})", kOperandSlotNames[static_cast<size_t>(slot)], describe(spec));
}

std::string keep_advice(const std::set<int64_t>& modules) {
  std::set<std::string> patterns;
  for (const int64_t module : modules) {
    patterns.insert(fmt::format("\"blocks.*.{}\"",
                                kLinearNames[static_cast<size_t>(module % kLinearsPerBlock)]));
  }
  return fmt::format("keep these layers in bf16 in the recipe: [keep] layers = [{}]",
                     fmt::join(patterns, ", "));
}

std::vector<std::string> shape_problems(const Config& config, Purpose purpose) {
  if (!config.precision.loaded.quantized()) return {};
  std::vector<std::string> problems;
  add_idle_patterns(config, problems);
  Misfits misfits;
  for (const PrecisionPhase& phase : plan_precision(config).phases) {
    for (size_t i = 0; i < phase.tables.size(); ++i) {
      const auto module = static_cast<int64_t>(i);
      const auto kind = static_cast<LinearKind>(module % kLinearsPerBlock);
      for (size_t s = 0; s < kOperandSlots; ++s) {
        const auto slot = static_cast<OperandSlot>(s);
        if (!is_read(slot, purpose)) continue;
        const QuantSpec& spec = phase.tables[i][slot];
        const OperandDimensions d = dimensions_of(slot, config, kind);
        misfits.add(d.k, multiple_of_k(spec), module, slot, spec);
        misfits.add(d.rows, multiple_of_rows(spec), module, slot, spec);
      }
    }
  }
  for (const std::string& text : misfits.texts()) problems.push_back(text);
  return problems;
}

std::vector<std::string> recipe_problems(const Config& config, Purpose purpose) {
  if (!config.precision.loaded.quantized()) return {};
  Conflicts conflicts;
  for (const PrecisionPhase& phase : plan_precision(config).phases) {
    for (size_t i = 0; i < phase.tables.size(); ++i) {
      for (const auto& p : precision::problems(phase.tables[i], config.precision.loaded.compute)) {
        if (is_read(p.slot, purpose)) {
          conflicts.add(phase.first_step, static_cast<int64_t>(i), p);
        }
      }
    }
  }
  std::vector<std::string> problems = conflicts.texts();
  for (const std::string& text : shape_problems(config, purpose)) problems.push_back(text);
  return problems;
}

}  // namespace qstep::trainer
