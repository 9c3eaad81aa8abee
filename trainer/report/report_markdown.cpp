#include "trainer/report/report_markdown.h"

#include <fmt/format.h>

#include <functional>

#include "trainer/base/format.h"

namespace qstep::trainer::report {

namespace {

using Format = std::function<std::string(double)>;

std::string ms(double x) { return fmt::format("{:.4g} ms", x); }
std::string seconds(double x) { return fmt::format("{:.4g} s", x); }
std::string share(double x) { return fmt::format("{:.1f} %", 100 * x); }
std::string plain(double x) { return fmt::format("{:.5g}", x); }
std::string loss(double x) { return fmt::format("{:.4f}", x); }
std::string bytes(double x) { return si_text(x, "B"); }
std::string rate(double x) { return si_text(x, "FLOP/s"); }

std::string cell(const Json& json, const char* key, const Format& format) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? format(found->get<double>()) : "n/a";
}

class Table {
 public:
  explicit Table(std::vector<std::string> heads) {
    row(heads);
    for (size_t i = 0; i < heads.size(); ++i) text_ += i == 0 ? "|---" : "|---:";
    text_ += "|\n";
  }
  void row(const std::vector<std::string>& cells) {
    for (const std::string& c : cells) text_ += "| " + c + " ";
    text_ += "|\n";
  }
  std::string text() const { return text_ + "\n"; }

 private:
  std::string text_;
};

bool available(const Json& section) { return section.at("available").get<bool>(); }

std::string reason(const Json& section) {
  return fmt::format("*Not available: {}.*\n\n", section.at("reason").get<std::string>());
}

// "a, nvfp4 (emulated)"
std::string title(const Json& run) {
  const Json& recipe = run.at("header").at("recipe");
  return fmt::format("{}, {}{}", run.at("name").get<std::string>(),
                     recipe.at("name").get<std::string>(),
                     recipe.at("emulated").get<bool>() ? " (emulated)" : "");
}

// The section of every run, each with its name above; what is missing says why.
std::string per_run(const Json& runs, const char* heading, const char* key,
                    const std::function<std::string(const Json& run, const Json& section)>& f) {
  std::string text = fmt::format("## {}\n\n", heading);
  for (const Json& run : runs) {
    const Json& section = run.at(key);
    text += fmt::format("**{}**\n\n", title(run));
    text += available(section) ? f(run, section) : reason(section);
  }
  return text;
}

std::string overview(const Json& runs) {
  Table table({"run", "median step", "p95", "tokens/s", "model flops, causal", "SOL",
               "validation loss", "goodput", "peak memory"});
  for (const Json& run : runs) {
    const Json& losses = run.at("loss");
    const bool validated = available(losses) && available(losses.at("validation"));
    table.row(
        {title(run), cell(run.at("step_time"), "p50_ms", ms),
         cell(run.at("step_time"), "p95_ms", ms), cell(run.at("throughput"), "tokens_per_s", plain),
         cell(run.at("throughput"), "flops_per_s_causal", rate),
         available(run.at("throughput")) ? cell(run.at("throughput").at("sol"), "value", share)
                                         : "n/a",
         validated ? cell(losses.at("validation"), "last", loss) : "n/a",
         cell(run.at("goodput"), "productive_share", share),
         cell(run.at("memory"), "peak_rss_bytes", bytes)});
  }
  return table.text();
}

std::string warnings(const Json& runs) {
  std::string text;
  for (const Json& run : runs) {
    const Json& header = run.at("header");
    const auto name = run.at("name").get<std::string>();
    if (!header.at("ending").at("recorded").get<bool>()) {
      text += fmt::format("> {}: not finished: {}\n>\n", name,
                          header.at("ending").at("text").get<std::string>());
    }
    for (const Json& file : header.at("ending").at("torn_files")) {
      text += fmt::format("> {}: the last line of {} is unfinished\n>\n", name,
                          file.get<std::string>());
    }
    const Json& check = header.at("config_check");
    if (available(check) && !check.at("equal").get<bool>()) {
      text +=
          fmt::format("> {}: the configuration in its folder is not the one that ran\n>\n", name);
    }
    for (const Json& problem : header.at("problems")) {
      text += fmt::format("> {}: left out: {}\n>\n", name, problem.get<std::string>());
    }
  }
  return text.empty() ? "" : text + "\n";
}

// What qstep compare measured in turn.
std::string comparisons(const Json& all) {
  const auto gain = [](double x) { return fmt::format("{:.4f}", x); };
  std::string text;
  for (const Json& comparison : all) {
    Table table({"recipe", "step", "baseline in turn", "gain", "low", "high", "blocks", "verdict",
                 "predicted gain", "difference"});
    for (const Json& pair : comparison.at("pairs")) {
      if (!pair.contains("gain")) continue;
      const char* const what = pair.at("observer").get<bool>()      ? " timed"
                               : pair.at("noise_floor").get<bool>() ? " again"
                                                                    : "";
      const Json& interval = pair.at("gain_interval");
      table.row({pair.at("b").get<std::string>() + what, cell(pair, "b_ms", ms),
                 cell(pair, "a_ms", ms), cell(pair, "gain", gain), gain(interval[0]),
                 gain(interval[1]), cell(pair, "blocks", plain),
                 pair.at("verdict").get<std::string>(), cell(pair.at("prediction"), "gain", gain),
                 cell(pair.at("prediction"), "difference", share)});
    }
    text +=
        fmt::format("## In turn: {}\n\n", comparison.at("path").get<std::string>()) + table.text();
    if (comparison.at("loss_gaps").empty()) continue;
    Table losses({"recipe", "validation loss", "gap", "standard error", "seeds"});
    for (const Json& row : comparison.at("loss_gaps")) {
      losses.row({row.at("recipe").get<std::string>(), cell(row, "loss", loss),
                  cell(row, "gap", [](double x) { return fmt::format("{:+.4f}", x); }),
                  cell(row, "standard_error", loss), cell(row, "seeds", plain)});
    }
    text += losses.text();
  }
  return text;
}

std::string comparison(const Json& runs) {
  if (runs.size() < 2) return "";
  Table table(
      {"against " + title(runs[0]), "ratio of median steps", "validation loss, gap", "at tokens"});
  for (size_t i = 1; i < runs.size(); ++i) {
    const Json& compare = runs[i].at("compare");
    table.row({title(runs[i]),
               cell(compare, "step_time_ratio", [](double x) { return fmt::format("{:.3f}", x); }),
               cell(compare.at("loss"), "gap", [](double x) { return fmt::format("{:+.4f}", x); }),
               cell(compare.at("loss"), "tokens", plain)});
  }
  return "## Side by side\n\n" + table.text() +
         fmt::format("No interval: {}. No verdict on speed: {}.\n\n",
                     runs[1].at("compare").at("interval").at("reason").get<std::string>(),
                     runs[1].at("compare").at("speed_verdict").at("reason").get<std::string>());
}

std::string step_time(const Json&, const Json& time) {
  Table table({"n", "mean", "sd", "CV", "min", "p5", "p50", "p90", "p95", "p99", "max"});
  std::vector<std::string> cells = {cell(time, "n", plain), cell(time, "mean_ms", ms),
                                    cell(time, "sd_ms", ms), cell(time, "cv", share)};
  for (const char* key : {"min_ms", "p5_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"}) {
    cells.push_back(cell(time, key, ms));
  }
  table.row(cells);
  std::string text =
      table.text() + fmt::format("{} steps of warm-up and {} tagged steps are left out.",
                                 time.at("n_warm_up").get<int64_t>(),
                                 time.at("n_tagged").get<int64_t>());
  for (const Json& tag : time.at("tags")) {
    text += fmt::format(" {}: {} (median {}).", tag.at("tag").get<std::string>(),
                        tag.at("n").get<int64_t>(), cell(tag, "p50_ms", ms));
  }
  return text + "\n\n";
}

std::string breakdown(const Json&, const Json& section) {
  Table table({"phase", "mean", "share"});
  for (const Json& row : section.at("phases")) {
    table.row(
        {row.at("phase").get<std::string>(), cell(row, "mean_ms", ms), cell(row, "share", share)});
  }
  return table.text();
}

std::string precision(const Json&, const Json& section) {
  const Json& gemms = section.at("gemms");
  if (!available(gemms)) return reason(gemms);
  const auto against = gemms.at("against").get<std::string>();
  Table table({"GEMM", "m n k", "formats", "layers", "time", "rate", against, "of it", "lost"});
  for (const Json& row : gemms.at("kinds")) {
    table.row({row.at("op").get<std::string>() + " " + row.at("pass").get<std::string>(),
               fmt::format("{} {} {}", row.at("m").get<int64_t>(), row.at("n").get<int64_t>(),
                           row.at("k").get<int64_t>()),
               fmt::format("{} x {}{}", row.at("format_a").get<std::string>(),
                           row.at("format_b").get<std::string>(),
                           row.at("emulated").get<bool>() ? " (emulated)" : ""),
               cell(row, "n_layers", plain), cell(row, "ms", ms), cell(row, "flops_per_s", rate),
               cell(row, "reference_flops_per_s", rate), cell(row, "share_of_reference", share),
               cell(row, "lost_ms", ms)});
  }
  return fmt::format("Against {}.\n\n", gemms.at("reference").get<std::string>()) + table.text();
}

std::string throughput(const Json&, const Json& section) {
  Table table({"at the median step", "", "formula"});
  const auto value = [&](const char* name, const char* key, const Format& format) {
    table.row({name, cell(section, key, format), ""});
  };
  value("tokens/s", "tokens_per_s", plain);
  value("tokens/s of a rank", "tokens_per_s_per_rank", plain);
  value("FLOP per token, causal", "flops_per_token_causal", plain);
  value("FLOP per token, full", "flops_per_token_full", plain);
  value("rate of a rank, causal", "flops_per_s_causal_per_rank", rate);
  value("rate of a rank, full", "flops_per_s_full_per_rank", rate);
  const auto share_row = [&](const char* name, const char* key) {
    const Json& json = section.at(key);
    table.row({name, cell(json, "value", share),
               available(json) ? json.at("formula").get<std::string>()
                               : "not available: " + json.at("reason").get<std::string>()});
  };
  share_row("MFU", "mfu");
  share_row("HFU", "hfu");
  share_row("SOL", "sol");
  share_row("SOL with memory", "sol_mem");
  std::string text =
      fmt::format("{}.\n\n", section.at("formula").get<std::string>()) + table.text();
  const Json& peak = section.at("peak");
  if (available(peak)) {
    text += fmt::format("Peaks of {}, {}:", peak.at("machine").get<std::string>(),
                        peak.at("source").get<std::string>());
    for (const auto& [format, per_s] : peak.at("flops_per_s").items()) {
      text += fmt::format(" {} {},", format, rate(per_s.get<double>()));
    }
    text += fmt::format(" memory {}.\n\n", cell(peak, "memory_bytes_per_s",
                                                [](double x) { return si_text(x, "B/s"); }));
  }
  const Json& gain = section.at("largest_gain");
  if (available(gain)) {
    const Format times = [](double x) { return fmt::format("{:.2f}x", x); };
    text +=
        fmt::format("Largest possible gain of the recipe over BF16, by its products alone: {} here",
                    cell(gain, "here", times));
    for (const Json& row : gain.at("elsewhere")) {
      text +=
          fmt::format(", {} on {}", cell(row, "value", times), row.at("title").get<std::string>());
    }
    text += ".\n\n";
  }
  return text;
}

std::string comm(const Json&, const Json& section) {
  Table table({"per step", "bytes", "total", "exposed", "hidden"});
  const auto row = [&](const std::string& name, const Json& json) {
    table.row({name, cell(json, "bytes", bytes), cell(json, "total_ms", ms),
               cell(json, "exposed_ms", ms), cell(json, "overlap", share)});
  };
  row("first rank, all", section.at("first_rank"));
  const Json& collectives = section.at("collectives");
  if (!available(collectives)) return table.text() + reason(collectives);
  for (const Json& json : collectives.at("rows")) {
    row(json.at("group").get<std::string>() + " " + json.at("op").get<std::string>(), json);
  }
  const Json& twice = section.at("exposed_twice");
  if (!available(twice)) return table.text() + reason(twice);
  return table.text() + "Exposed, by two measures: " + cell(twice, "intervals_ms", ms) +
         " of the collectives outside of the computation, " + cell(twice, "waits_ms", ms) +
         " waited; they differ by at most " + cell(twice, "worst_difference_share", share) +
         " of a step on any rank.\n\n";
}

std::string ranks(const Json&, const Json& section) {
  Table table({"rank", "host", "busy", "score", "slowest in"});
  for (const Json& row : section.at("ranks")) {
    table.row({cell(row, "rank", plain),
               row.at("host").is_string() ? row.at("host").get<std::string>() : "n/a",
               cell(row, "busy_ms", ms), cell(row, "score", plain),
               cell(row, "slowest_windows", plain) + " of " + cell(row, "windows", plain)});
  }
  const Json& slow = section.at("straggler");
  return table.text() +
         (slow.is_null() ? "" : fmt::format("Rank {} is slow.\n\n", slow.get<int64_t>()));
}

std::string memory(const Json&, const Json& section) {
  std::string text = "Peak resident memory: " + cell(section, "peak_rss_bytes", bytes) + ".\n\n";
  const Json& owners = section.at("by_owner");
  if (!available(owners)) return text + reason(owners);
  Table table({"owner", "mean", "least", "most"});
  for (const Json& row : owners.at("owners")) {
    table.row({row.at("owner").get<std::string>(), cell(row, "mean_bytes", bytes),
               cell(row, "min_bytes", bytes), cell(row, "max_bytes", bytes)});
  }
  return text + table.text();
}

std::string goodput(const Json&, const Json& section) {
  Table table({"bucket", "time", "share"});
  for (const Json& row : section.at("buckets")) {
    table.row(
        {row.at("bucket").get<std::string>(), cell(row, "s", seconds), cell(row, "share", share)});
  }
  table.row({"wall", cell(section, "wall_s", seconds), ""});
  return table.text();
}

std::string observer(const Json&, const Json& section) {
  Table table({"noting a call", "notes of a step", "cost of a step", "share", "bound"});
  const auto fine = [](double x) { return fmt::format("{:.3f} %", 100 * x); };
  table.row({cell(section, "note_ns", [](double x) { return fmt::format("{:.3g} ns", x); }),
             cell(section, "notes_per_step", plain), cell(section, "cost_ms", ms),
             cell(section, "share", fine), cell(section, "bound", fine)});
  return table.text();
}

std::string header(const Json& run, const Json& section) {
  std::string text;
  if (section.at("config_hash").is_string()) {
    text += fmt::format("Configuration {}.\n\n", section.at("config_hash").get<std::string>());
  }
  for (const char* key : {"build", "machine", "libraries", "environment"}) {
    const Json& group = section.at(key);
    text += fmt::format("* {}: ", key);
    if (!available(group)) {
      text += reason(group);
      continue;
    }
    std::vector<std::string> facts;
    for (const Json& fact : group.at("facts")) {
      facts.push_back(fmt::format("{} {}", fact.at("name").get<std::string>(),
                                  fact.at("value").get<std::string>()));
    }
    text += facts.empty() ? "none\n" : fmt::format("{}\n", fmt::join(facts, "; "));
  }
  const Json& power = run.at("power");
  return text + "* power: " + (available(power) ? "" : reason(power));
}

}  // namespace

std::string report_markdown(const Json& report) {
  const Json& runs = report.at("runs");
  const std::string head = "# Quarterstep report\n\n" + report.at("verdict").get<std::string>() +
                           "\n\n" + comparisons(report.at("comparisons"));
  if (runs.empty()) return head;
  return head + warnings(runs) + overview(runs) + comparison(runs) +
         per_run(runs, "Step time", "step_time", step_time) +
         per_run(runs, "Where a step goes", "breakdown", breakdown) +
         per_run(runs, "GEMMs by what they lose", "precision", precision) +
         per_run(runs, "Throughput", "throughput", throughput) +
         per_run(runs, "Communication", "comm", comm) + per_run(runs, "Ranks", "ranks", ranks) +
         per_run(runs, "Memory", "memory", memory) + per_run(runs, "Goodput", "goodput", goodput) +
         per_run(runs, "What measuring took", "observer", observer) +
         per_run(runs, "What ran", "header", header);
}

}  // namespace qstep::trainer::report
