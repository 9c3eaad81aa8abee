// qstep report
#include <fmt/format.h>

#include <memory>

#include "trainer/checkpoint_files.h"
#include "trainer/commands.h"
#include "trainer/report_html.h"
#include "trainer/report_json.h"
#include "trainer/report_markdown.h"

namespace qstep::trainer {

namespace {

struct Options {
  std::vector<std::string> runs;
  std::string folder = "report";
  bool json = false;
};

void make_report(const Options& o) {
  std::vector<report::Run> runs;
  for (const std::string& folder : o.runs) runs.push_back(report::read_run(folder));
  const report::Json json = report::report_json(runs);
  for (const report::Run& run : runs) {
    for (const std::string& problem : run.problems) fmt::print(stderr, "warning: {}\n", problem);
  }
  const std::string text = json.dump(1, ' ', false, report::Json::error_handler_t::replace) + "\n";
  if (o.json) {
    fmt::print("{}", text);
    return;
  }
  CheckpointFiles files;
  files.create_folders(o.folder);
  files.replace_file(o.folder + "/report.json", text);
  files.replace_file(o.folder + "/report.md", report::report_markdown(json));
  files.replace_file(o.folder + "/report.html", report::report_html(json));
  fmt::print("{}\n", json.at("verdict").get<std::string>());
  for (const char* name : {"html", "md", "json"}) fmt::print("  {}/report.{}\n", o.folder, name);
}

}  // namespace

void add_report_command(CLI::App& app, int&) {
  const auto options = std::make_shared<Options>();
  Options& o = *options;
  CLI::App* report =
      app.add_subcommand("report", "Where the time of runs went, and what came of it");
  report->add_option("runs", o.runs, "run folders; the first is what others are held against")
      ->required()
      ->type_name("RUN...");
  report
      ->add_option("-o,--output", o.folder,
                   "folder for report.html (one page, no network), report.md and report.json")
      ->capture_default_str();
  report->add_flag("--json", o.json, "print report.json and write nothing");
  report->footer(
      "Examples:\n"
      "  qstep report runs/nvfp4\n"
      "  qstep report runs/bf16 runs/nvfp4 -o report/");
  report->callback([options] { make_report(*options); });
}

}  // namespace qstep::trainer
