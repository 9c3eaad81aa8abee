#include "trainer/compare_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "trainer/emulation.h"
#include "trainer/format.h"

namespace qstep::trainer {

namespace {

using Cells = std::vector<std::string>;

// A table's columns, and its rows behind them.
struct Table {
  Cells head;
  std::vector<Cells> rows;
};

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
  if (result.blocks_needed > result.blocks) {
    return fmt::format("inconclusive: {} blocks are needed (--blocks)", result.blocks_needed);
  }
  return fmt::format("inconclusive: {} from 1 lies within the interval", percent(threshold));
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
    const std::vector<double> logs = block_logs(pair.segments_ms);
    if (logs.empty()) continue;
    const bool floor = pair.recipe == 0;
    const AbbaResult r = judge(logs, options);
    const double ms = side_ms(pair, Side::kB);
    table.rows.push_back(
        {s.recipes[pair.recipe] + (floor ? " again" : ""),
         std::string(emulation_text(s.emulated[pair.recipe])), fmt::format("{:.2f}", ms),
         fmt::format("{:.0f}", static_cast<double>(s.tokens_per_step) / (ms * 1e-3)),
         fmt::format("{:.2f}", side_ms(pair, Side::kA)), fmt::format("{:.4f}", r.gain),
         fmt::format("{:.4f} - {:.4f}", r.interval.low, r.interval.high),
         fmt::format("{}", r.blocks),
         floor ? "noise floor: what this machine makes of no difference"
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

std::string aligned(const Table& table) {
  std::vector<size_t> widths;
  for (const std::string& cell : table.head) widths.push_back(cell.size());
  for (const Cells& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  const auto line = [&](const Cells& cells) {
    std::string out;
    for (size_t i = 0; i < cells.size(); ++i) {
      const bool left = i < 2 || i + 1 == cells.size();
      out += left ? fmt::format("  {:<{}}", cells[i], widths[i])
                  : fmt::format("  {:>{}}", cells[i], widths[i]);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + "\n";
  };
  line(table.head);
  for (const Cells& row : table.rows) line(row);
  return text;
}

std::string markdown(const Table& table) {
  const auto line = [](const Cells& cells) {
    return fmt::format("| {} |\n", fmt::join(cells, " | "));
  };
  std::string text = line(table.head) + "|";
  for (size_t i = 0; i < table.head.size(); ++i) text += "---|";
  text += "\n";
  for (const Cells& row : table.rows) text += line(row);
  return text;
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
        "as the median of its steps, a block as log(mean A / mean B), the gain is exp(mean of the "
        "blocks). Interval: bootstrap over blocks, percentile, {} resamples, seed {}. A gain or a "
        "regression is an interval beyond 1 + {} or 1 - {}.\n",
        s.recipes[0], segments(s), options.bootstrap.resamples, options.bootstrap.seed,
        options.threshold, options.threshold);
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
