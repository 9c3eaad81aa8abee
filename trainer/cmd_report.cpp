// qstep report
#include <fmt/format.h>

#include <memory>

#include "trainer/commands.h"
#include "trainer/report_json.h"

namespace qstep::trainer {

namespace {

struct Options {
  std::vector<std::string> runs;
  bool json = false;
};

void make_report(const Options& o) {
  std::vector<report::Run> runs;
  for (const std::string& folder : o.runs) runs.push_back(report::read_run(folder));
  const report::Json json = report::report_json(runs);
  fmt::print("{}\n", json.dump(1, ' ', false, report::Json::error_handler_t::replace));
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
  report->add_flag("--json", o.json, "as JSON");
  report->footer("Example:\n  qstep report runs/bf16 runs/nvfp4 --json");
  report->callback([options] { make_report(*options); });
}

}  // namespace qstep::trainer
