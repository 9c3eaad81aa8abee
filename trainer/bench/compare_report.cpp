#include "trainer/bench/compare_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "trainer/backend/emulation.h"
#include "trainer/base/format.h"
#include "trainer/base/text_table.h"
#include "trainer/bench/prediction.h"

namespace qstep::trainer {

namespace {

std::string percent(double share) { return fmt::format("{:.3g} %", 100 * share); }

// "-" for what is not known.
std::string loss_value(double value) {
  return std::isfinite(value) ? fmt::format("{:.4f}", value) : "-";
}

std::string verdict_text(const AbbaResult& result, double threshold, bool emulated) {
  if (emulated) return "emulated: the time says nothing about hardware that has the format";
  switch (result.verdict) {
    case Verdict::kGain:
      return fmt::format("gain: faster by more than {}", percent(threshold));
    case Verdict::kRegression:
      return fmt::format("regression: slower by more than {}", percent(threshold));
    case Verdict::kNeutral:
      return fmt::format("neutral: no difference of {}", percent(threshold));
    case Verdict::kInconclusive:
      break;
  }
  if (result.blocks < kMinBlocks) {
    return fmt::format("inconclusive: fewer than {} blocks", kMinBlocks);
  }
  const std::string what =
      differs(result) ? fmt::format("{}, perhaps by less than {}",
                                    result.gain > 1 ? "faster" : "slower", percent(threshold))
                      : "inconclusive";
  if (result.blocks_needed > result.blocks) {
    return fmt::format("{}: {} blocks are needed (--blocks)", what, result.blocks_needed);
  }
  if (differs(result)) return what;
  return fmt::format("inconclusive: {} from 1 lies within the interval", percent(threshold));
}

// What B's steps take beyond A's.
std::string observer_text(const AbbaResult& r) {
  const auto cost = [](double gain) { return 100 * (1 / gain - 1); };
  return fmt::format("timing costs {:+.2f} % of a step ({:+.2f} to {:+.2f})", cost(r.gain),
                     cost(r.interval.high), cost(r.interval.low));
}

std::string pair_name(const CompareState& state, const ComparePair& pair) {
  const char* const what = pair.observer ? " timed" : pair.recipe == 0 ? " again" : "";
  return state.setting.recipes[pair.recipe] + what;
}

std::string from_to(double a, double b) { return fmt::format("{:.2f} -> {:.2f}", a, b); }

std::optional<Prediction> prediction_of(const ComparePair& pair, const AbbaOptions& options) {
  const std::vector<double> logs = pair_logs(pair.segments_ms);
  if (logs.empty()) return std::nullopt;
  return predict(pair, judge(logs, options).gain);
}

Table step_table(const CompareState& state, const AbbaOptions& options) {
  const CompareSetting& s = state.setting;
  const std::string& baseline = s.recipes[0];
  Table table{
      .head = {"recipe", "", "step ms", "tokens/s", baseline + " in turn", "gain over " + baseline,
               fmt::format("{:.0f} % interval", 100 * options.bootstrap.level), "blocks",
               "verdict"},
      .rows = {}};
  for (const ComparePair& pair : state.pairs) {
    const std::vector<double> logs = pair_logs(pair.segments_ms);
    if (logs.empty()) continue;
    const bool floor = pair.recipe == 0;
    const AbbaResult r = judge(logs, options);
    const double ms = side_ms(pair, Side::kB);
    table.rows.push_back(
        {pair_name(state, pair), std::string(emulation_text(s.emulated[pair.recipe])),
         fmt::format("{:.2f}", ms),
         fmt::format("{:.0f}", static_cast<double>(s.tokens_per_step) / (ms * 1e-3)),
         fmt::format("{:.2f}", side_ms(pair, Side::kA)), fmt::format("{:.4f}", r.gain),
         fmt::format("{:.4f} - {:.4f}", r.interval.low, r.interval.high),
         fmt::format("{}", r.blocks),
         pair.observer ? observer_text(r)
         : floor       ? "noise floor: what this machine makes of no difference"
                       : verdict_text(r, options.threshold, pair_emulated(state, pair))});
  }
  return table;
}

Table loss_table(const CompareState& state) {
  const CompareSetting& s = state.setting;
  Table table{.head = {"recipe", "", "validation loss", "gap to " + s.recipes[0], "standard error",
                       "seeds"},
              .rows = {}};
  for (size_t i = 0; i < s.recipes.size(); ++i) {
    const LossGap gap = loss_gap(state, i);
    std::string seeds = fmt::format("{}", gap.seeds);
    if (gap.not_finite > 0) seeds += fmt::format(" ({} not finite)", gap.not_finite);
    const bool baseline = i == 0;
    table.rows.push_back(
        {s.recipes[i], std::string(emulation_text(s.emulated[i])), loss_value(gap.loss),
         baseline ? "0" : (std::isfinite(gap.gap) ? fmt::format("{:+.4f}", gap.gap) : "-"),
         baseline ? "" : loss_value(gap.standard_error), seeds});
  }
  return table;
}

// Predicted beside measured, a row for each recipe; no rows where timing.level was not ops.
Table prediction_table(const CompareState& state, const AbbaOptions& options) {
  const CompareSetting& s = state.setting;
  Table table{.head = {"recipe", "", "predicted gain", "measured", "difference", "GEMMs ms",
                       "quantizers ms", "what else changed"},
              .rows = {}};
  for (const ComparePair& pair : state.pairs) {
    const std::optional<Prediction> p = prediction_of(pair, options);
    if (!p) continue;
    LinearGain all;
    for (const LinearGain& linear : p->linears) {
      all.gemms_a_ms += linear.gemms_a_ms;
      all.gemms_b_ms += linear.gemms_b_ms;
      all.quant_a_ms += linear.quant_a_ms;
      all.quant_b_ms += linear.quant_b_ms;
    }
    table.rows.push_back(
        {pair_name(state, pair), std::string(emulation_text(s.emulated[pair.recipe])),
         fmt::format("{:.4f}", p->gain), fmt::format("{:.4f}", p->measured),
         fmt::format("{:+.1f} %", 100 * p->difference()), from_to(all.gemms_a_ms, all.gemms_b_ms),
         from_to(all.quant_a_ms, all.quant_b_ms), p->explained() ? "" : other_changes_text(*p)});
  }
  return table;
}

// Per linear layer what a recipe saves; not of the noise floor.
Table linear_table(const CompareState& state, const AbbaOptions& options) {
  const std::string& baseline = state.setting.recipes[0];
  Table table{.head = {"recipe", "layers", "GEMMs ms", "quantizers ms", "saves ms", ""},
              .rows = {}};
  for (const ComparePair& pair : state.pairs) {
    const std::optional<Prediction> p = prediction_of(pair, options);
    if (!p || pair.recipe == 0) continue;
    for (const LinearGain& linear : p->linears) {
      table.rows.push_back(
          {pair_name(state, pair), linear.op, from_to(linear.gemms_a_ms, linear.gemms_b_ms),
           from_to(linear.quant_a_ms, linear.quant_b_ms), fmt::format("{:+.3f}", linear.net_ms()),
           linear.net_ms() > 0 ? "" : "better kept as in " + baseline});
    }
    const auto saves = [](const LinearGain& linear) { return linear.net_ms() > 0; };
    const auto n = std::count_if(p->linears.begin(), p->linears.end(), saves);
    if (n == 0 || n == std::ssize(p->linears)) continue;
    table.rows.push_back({pair_name(state, pair), "those that save, alone", "", "", "",
                          fmt::format("predicted gain {:.4f}", p->winners_gain)});
  }
  return table;
}

std::string workload(const CompareSetting& s) {
  return fmt::format("{} parameters | {} tokens a step, {} | {} thread{} of {}",
                     count_text(s.n_parameters), with_commas(s.tokens_per_step),
                     s.data.empty() ? "synthetic" : s.data, s.threads, s.threads == 1 ? "" : "s",
                     s.cpu);
}

std::string segments(const CompareSetting& s) {
  return fmt::format("segments of {} steps behind {} of warm-up", s.steps, s.warmup);
}

// Where there are pairs that could have one.
std::string no_prediction(const CompareState& state) {
  const bool wanted = std::any_of(state.pairs.begin(), state.pairs.end(),
                                  [](const ComparePair& pair) { return !pair.observer; });
  return wanted ? "\nNo prediction: it needs timing.level = \"ops\".\n" : "";
}

bool measured(const CompareState& state) {
  return std::any_of(state.pairs.begin(), state.pairs.end(), [](const ComparePair& pair) {
    return static_cast<int64_t>(pair.segments_ms.size()) >= kSegmentsPerBlock;
  });
}

}  // namespace

std::string compare_text(const CompareState& state, const AbbaOptions& options) {
  std::string text = workload(state.setting) + "\n";
  if (measured(state)) {
    text += fmt::format("\nStep time in turn (A B B A, B A A B), {}\n", segments(state.setting)) +
            aligned(step_table(state, options));
    const Table predictions = prediction_table(state, options);
    text += predictions.rows.empty()
                ? no_prediction(state)
                : "\nGain predicted from the times of GEMMs and quantizers alone (Amdahl)\n" +
                      aligned(predictions);
    const Table linears = linear_table(state, options);
    if (!linears.rows.empty()) {
      text += "\nWhat the recipe saves by layer, of a step\n" + aligned(linears);
    }
  }
  if (!state.losses.empty()) {
    text += "\nLoss at equal tokens, mean over seeds, nats\n" + aligned(loss_table(state));
  }
  if (!state.notes.empty()) text += "\n";
  for (const std::string& note : state.notes) text += note + "\n";
  return text;
}

std::string compare_markdown(const CompareState& state, const AbbaOptions& options) {
  const CompareSetting& s = state.setting;
  std::string text = fmt::format("# {}\n\n{}\n", fmt::join(s.recipes, " against "), workload(s));
  if (measured(state)) {
    text += "\n## Step time\n\n" + markdown(step_table(state, options));
    text += fmt::format(
        "\nBlocks of four segments in the order A B B A, B A A B, ..., A = {}; {}. A segment "
        "counts "
        "as the median of its steps, its first two segments and its last two as log(A / B) each, "
        "the gain is exp(interquartile mean of these pairs). Interval: bootstrap over blocks, "
        "percentile, {} resamples, seed {}. A gain or a regression is an interval beyond 1 + {} or "
        "1 - {}.\n",
        s.recipes[0], segments(s), options.bootstrap.resamples, options.bootstrap.seed,
        options.threshold, options.threshold);
    const Table predictions = prediction_table(state, options);
    if (!predictions.rows.empty()) {
      text += "\n## Predicted from GEMMs and quantizers\n\n" + markdown(predictions);
      text += fmt::format(
          "\nAmdahl: step of {0} / (that step - what the GEMMs of the blocks save + what the "
          "quantizers cost). Where that is more than {1} from what was measured, the largest "
          "changes of other categories stand beside it.\n",
          s.recipes[0], percent(Prediction::kExplained));
    } else {
      text += no_prediction(state);
    }
    const Table linears = linear_table(state, options);
    if (!linears.rows.empty()) text += "\n" + markdown(linears);
  }
  if (!state.losses.empty()) {
    text += "\n## Loss\n\n" + markdown(loss_table(state));
    text +=
        "\nWhole runs from the same seeds and data; the last evaluation on the validation part, in "
        "nats. The gap is the mean over seeds of the difference to the baseline's run of the same "
        "seed, with its standard error.\n";
  }
  if (!state.notes.empty()) text += "\n## Notes\n\n";
  for (const std::string& note : state.notes) text += "* " + note + "\n";
  text += fmt::format("\n## Configuration\n\n```toml\n{}```\n", s.config_toml);
  return text;
}

}  // namespace qstep::trainer
