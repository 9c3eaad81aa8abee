// qstep report
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "ops/error.h"
#include "trainer/base/durable_files.h"
#include "trainer/command/commands.h"
#include "trainer/report/report_files.h"
#include "trainer/report/report_json.h"

namespace qstep::trainer {

namespace {

struct Options {
  std::vector<std::string> runs, imports;
  std::string from;
  std::string folder = "report";
  bool json = false;
};

// A report.json that an earlier call wrote.
report::Json read_report(const std::string& path) {
  const auto fail = [&](const std::string& why) {
    throw ops::Error(ops::ExitCode::kConfig,
                     fmt::format("{}: {}; name a report.json that qstep report wrote", path, why));
  };
  if (!std::filesystem::is_regular_file(path)) fail("there is no such file");
  report::Json json = report::Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("schema") || !json.contains("runs") ||
      !json.contains("comparisons")) {
    fail("not a report");
  }
  if (json.at("schema") != report::kReportSchema) {
    fail(fmt::format("schema {}, this qstep reads {}", json.at("schema").dump(),
                     report::kReportSchema));
  }
  return json;
}

void make_report(const Options& o) {
  if (o.runs.empty() && o.imports.empty() && o.from.empty()) {
    throw ops::Error(ops::ExitCode::kConfig,
                     "qstep report: name a run folder, --import LOG or --from report.json");
  }
  const report::Json json =
      o.from.empty() ? report::report_of_folders(o.runs, o.imports) : read_report(o.from);
  if (o.json) {
    fmt::print("{}", report::report_text(json));
    return;
  }
  report::write_report(o.folder, json);
  fmt::print("{}\n", json.at("verdict").get<std::string>());
  for (const char* name : {"html", "md", "json"}) fmt::print("  {}/report.{}\n", o.folder, name);
}

}  // namespace

void add_report_command(CLI::App& app, int&) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* report =
      app.add_subcommand("report", "Where the time of runs went, and what came of it");
  report
      ->add_option(
          "runs", o.runs,
          "folders of qstep train and qstep compare; the first run is what others are held against")
      ->type_name("RUN...");
  CLI::Option* import = report->add_option(
      "--import", o.imports,
      "logs of Megatron-LM, torchtitan, MaxText, llm.c or llmq, shown beside the runs");
  import->type_name("LOG")->allow_extra_args(false);
  report
      ->add_option("--from", o.from,
                   "only write the page and the Markdown of this report.json again")
      ->type_name("FILE")
      ->excludes("runs")
      ->excludes(import);
  report
      ->add_option("-o,--output", o.folder,
                   "folder for report.html (one page, no network), report.md and report.json")
      ->capture_default_str();
  report->add_flag("--json", o.json, "print report.json and write nothing");
  report->footer(
      "Examples:\n"
      "  qstep report runs/nvfp4\n"
      "  qstep report runs/bf16 runs/nvfp4 -o report/\n"
      "  qstep report runs/bf16 --import megatron.log\n"
      "  qstep report --from report/report.json -o elsewhere/");
  report->callback([options] { make_report(*options); });
}

}  // namespace qstep::trainer
