// qstep recipe ledger
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "ops/error.h"
#include "trainer/backend/emulation.h"
#include "trainer/command/commands.h"
#include "trainer/run/ledger_file.h"
#include "trainer/run/run_dir.h"

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;
using ops::Error;
using ops::ExitCode;
using Rows = std::vector<LedgerRow>;

// What the table can be sorted by; the larger the worse.
struct SortKey {
  std::string_view name;
  float (*badness)(const LedgerRow&);
};
constexpr std::array<SortKey, 6> kSortKeys{
    {{"snr", [](const LedgerRow& r) { return -r.snr_db; }},
     {"underflow", [](const LedgerRow& r) { return r.underflowed_share; }},
     {"saturated", [](const LedgerRow& r) { return r.saturated_share; }},
     {"zero-scales", [](const LedgerRow& r) { return r.zero_scale_share; }},
     {"non-finite", [](const LedgerRow& r) { return r.non_finite_share; }},
     {"amax", [](const LedgerRow& r) { return r.amax; }}}};

struct Options {
  std::string run;
  std::string step = "last";
  std::string sort;
  std::string layers = "*";
  bool json = false;
};

std::vector<int64_t> steps_of(const Rows& rows) {
  std::vector<int64_t> steps;
  for (const LedgerRow& row : rows) {
    if (steps.empty() || steps.back() != row.step) steps.push_back(row.step);
  }
  return steps;
}

std::string steps_text(const std::vector<int64_t>& steps) {
  constexpr size_t kShown = 6;
  std::string text;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps.size() > kShown && i == kShown / 2) {
      text += ", ...";
      i = steps.size() - kShown / 2;
    }
    text += fmt::format("{}{}", text.empty() ? "" : ", ", steps[i]);
  }
  return text;
}

int64_t chosen_step(const std::string& path, const std::vector<int64_t>& steps,
                    const std::string& wanted) {
  if (wanted == "last") return steps.back();
  for (const int64_t step : steps) {
    if (wanted == std::to_string(step)) return step;
  }
  throw Error(ExitCode::kConfig,
              fmt::format("{}: --step {}: not a counted step; choose one of {}, or last", path,
                          wanted, steps_text(steps)));
}

Rows rows_at(const Rows& rows, int64_t step, const std::string& layers) {
  Rows chosen;
  for (const LedgerRow& row : rows) {
    if (row.step == step && precision::matches(layers, row.layer)) chosen.push_back(row);
  }
  return chosen;
}

// Worst first; what is not a number (no error at all) last.
void sort_rows(Rows& rows, const std::string& by) {
  const auto* const key = std::find_if(kSortKeys.begin(), kSortKeys.end(),
                                       [&](const SortKey& k) { return k.name == by; });
  if (key == kSortKeys.end()) return;
  std::stable_sort(rows.begin(), rows.end(), [&](const LedgerRow& a, const LedgerRow& b) {
    const float x = key->badness(a), y = key->badness(b);
    return !std::isnan(x) && (std::isnan(y) || x > y);
  });
}

// ---- summary ---------------------------------------------------------------------------------

// Middle and worst of a figure over the layers that have it.
struct Spread {
  float median = std::nanf(""), worst = std::nanf("");
  std::string worst_layer;
};

Spread spread_of(const Rows& rows, const std::string& operand, float (*badness)(const LedgerRow&)) {
  Spread spread;
  std::vector<float> values;
  for (const LedgerRow& row : rows) {
    const float value = badness(row);
    if (row.operand != operand || std::isnan(value)) continue;
    if (values.empty() || value > spread.worst) {
      spread.worst = value;
      spread.worst_layer = row.layer;
    }
    values.push_back(value);
  }
  if (values.empty()) return spread;
  std::sort(values.begin(), values.end());
  spread.median = (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
  return spread;
}

struct OperandSummary {
  std::string operand;
  int64_t n_layers = 0;
  Spread snr_db, underflow;       // snr_db: of its negative
  float first_snr_db_median = 0;  // at the first counted step
  int64_t non_finite_layers = 0;
};

std::vector<OperandSummary> summarize(const Rows& rows, const Rows& first) {
  std::vector<OperandSummary> summaries;
  for (const std::string_view name : precision::kOperandSlotNames) {
    OperandSummary s;
    s.operand = name;
    for (const LedgerRow& row : rows) {
      if (row.operand != name) continue;
      ++s.n_layers;
      s.non_finite_layers += row.non_finite_share > 0 ? 1 : 0;
    }
    if (s.n_layers == 0) continue;
    const auto snr = kSortKeys[0].badness;
    s.snr_db = spread_of(rows, s.operand, snr);
    s.underflow = spread_of(rows, s.operand, kSortKeys[1].badness);
    s.first_snr_db_median = -spread_of(first, s.operand, snr).median;
    summaries.push_back(std::move(s));
  }
  return summaries;
}

// ---- text ------------------------------------------------------------------------------------

std::string number_text(float value, int digits) {
  return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, digits);
}

std::string share_text(float share) {
  if (share == 0) return "0 %";
  const float percent = 100 * share;
  return percent < 0.01f ? fmt::format("{:.0e} %", percent) : fmt::format("{:.2f} %", percent);
}

size_t widest_layer(const Rows& rows) {
  size_t width = 5;
  for (const LedgerRow& row : rows) width = std::max(width, row.layer.size());
  return width;
}

void print_rows(const Rows& rows) {
  std::vector<std::string> formats;
  for (const LedgerRow& row : rows) {
    if (std::find(formats.begin(), formats.end(), row.format) == formats.end()) {
      formats.push_back(row.format);
    }
  }
  const size_t width = widest_layer(rows);
  for (const std::string& format : formats) {
    bool heading = false;
    for (const LedgerRow& row : rows) {
      if (row.format != format) continue;
      if (!heading) {
        fmt::print("\n{}, {}\n", format, emulation_text(row.emulated));
        fmt::print("  {:<{}}  {:<8} {:>9} {:>9} {:>8} {:>10} {:>10} {:>10} {:>10}\n", "layer",
                   width, "operand", "amax", "scale", "snr, dB", "underflow", "saturated",
                   "zero scale", "non-finite");
        heading = true;
      }
      fmt::print("  {:<{}}  {:<8} {:>9.3g} {:>9.3g} {:>8} {:>10} {:>10} {:>10} {:>10}\n", row.layer,
                 width, row.operand, row.amax, row.scale, number_text(row.snr_db, 2),
                 share_text(row.underflowed_share), share_text(row.saturated_share),
                 row.blocks > 0 ? share_text(row.zero_scale_share) : "-",
                 share_text(row.non_finite_share));
    }
  }
}

void print_summary(const std::vector<OperandSummary>& summaries, const Rows& rows, int64_t step,
                   int64_t first_step) {
  const size_t width = widest_layer(rows);
  fmt::print("\nover the layers\n");
  fmt::print("  {:<8} {:>6}  {:>7} {:>7}  {:<{}}  {:>9} {:>9}  {:<{}}  {}\n", "operand", "layers",
             "snr, dB", "worst", "at", width, "underflow", "worst", "at", width,
             fmt::format("snr, step {} -> {}", first_step, step));
  for (const OperandSummary& s : summaries) {
    fmt::print("  {:<8} {:>6}  {:>7} {:>7}  {:<{}}  {:>9} {:>9}  {:<{}}  {} -> {}\n", s.operand,
               s.n_layers, number_text(-s.snr_db.median, 2), number_text(-s.snr_db.worst, 2),
               s.snr_db.worst_layer, width, share_text(s.underflow.median),
               share_text(s.underflow.worst), s.underflow.worst_layer, width,
               number_text(s.first_snr_db_median, 2), number_text(-s.snr_db.median, 2));
  }
  for (const OperandSummary& s : summaries) {
    if (s.non_finite_layers == 0) continue;
    fmt::print("  warning: non-finite inputs to {} in {} of {} layers\n", s.operand,
               s.non_finite_layers, s.n_layers);
  }
}

Json to_json(const std::vector<OperandSummary>& summaries) {
  const auto number = [](float value) { return std::isfinite(value) ? Json(value) : Json(); };
  Json json = Json::array();
  for (const OperandSummary& s : summaries) {
    json.push_back({{"operand", s.operand},
                    {"n_layers", s.n_layers},
                    {"snr_db_median", number(-s.snr_db.median)},
                    {"snr_db_worst", number(-s.snr_db.worst)},
                    {"snr_db_worst_layer", s.snr_db.worst_layer},
                    {"snr_db_median_first_step", number(s.first_snr_db_median)},
                    {"underflowed_share_median", number(s.underflow.median)},
                    {"underflowed_share_worst", number(s.underflow.worst)},
                    {"underflowed_share_worst_layer", s.underflow.worst_layer},
                    {"non_finite_layers", s.non_finite_layers}});
  }
  return json;
}

void show_ledger(const Options& o) {
  const std::string path = ledger_jsonl(o.run);
  const Rows all = read_ledger(path);
  const std::vector<int64_t> steps = steps_of(all);
  const int64_t step = chosen_step(path, steps, o.step);
  Rows rows = rows_at(all, step, o.layers);
  if (rows.empty()) {
    throw Error(ExitCode::kConfig,
                fmt::format("{}: --layer {}: no layer of step {} has such a name; they are like "
                            "{}, and '*' stands for any text",
                            path, o.layers, step, rows_at(all, step, "*").front().layer));
  }
  const std::vector<OperandSummary> summaries =
      summarize(rows, rows_at(all, steps.front(), o.layers));
  sort_rows(rows, o.sort);
  if (o.json) {
    Json json = {{"path", path}, {"step", step}, {"steps", steps}, {"rows", Json::array()}};
    for (const LedgerRow& row : rows) json["rows"].push_back(trainer::to_json(row));
    json["operands"] = to_json(summaries);
    fmt::print("{}\n", json.dump(2));
    return;
  }
  fmt::print("{}: step {}; counted: {}\n", path, step, steps_text(steps));
  print_rows(rows);
  print_summary(summaries, rows, step, steps.front());
}

}  // namespace

void add_recipe_ledger(CLI::App& recipe) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* ledger = recipe.add_subcommand(
      "ledger", "What quantization did to every operand of a run: range, underflow, error");
  ledger->add_option("run", o.run, "run folder")->required()->type_name("RUN");
  ledger->add_option("--step", o.step, "a counted step, or last")->capture_default_str();
  std::vector<std::string> keys;
  for (const SortKey& key : kSortKeys) keys.emplace_back(key.name);
  ledger->add_option("--sort", o.sort, "worst first by this, within each format")
      ->check(CLI::IsMember(keys));
  ledger->add_option("--layer", o.layers, "layers by name; '*' stands for any text")
      ->capture_default_str();
  ledger->add_flag("--json", o.json, "as JSON");
  ledger->footer(
      "Examples:\n"
      "  qstep recipe ledger runs/nvfp4 --sort snr\n"
      "  qstep recipe ledger runs/nvfp4 --layer 'blocks.*.down' --step 100\n"
      "The run counts every precision.ledger_every-th step.");
  ledger->callback([options] { show_ledger(*options); });
}

}  // namespace qstep::trainer
