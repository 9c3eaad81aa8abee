// The page of a report in a real browser: its figures are those of the JSON, and it complains of
// nothing. Skipped where no Chromium is found.
#include <gtest/gtest.h>
#include <unistd.h>

#include <regex>

#include "tests/interop/output_of.h"
#include "tests/trainer/report_testing.h"
#include "trainer/report/report_html.h"

namespace qstep::trainer::report::testing {
namespace {

std::string browser() {
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
    std::string path = test::first_line_of(fmt::format("command -v {}", name));
    if (!path.empty()) return path;
  }
  return "";
}

// A run with something in every section.
Json full_report() {
  MadeUpRun run;
  run.start(1, "nvfp4", true, 2);
  put_steps(run, 1, 40);
  run.evaluation(40, 8.25);
  std::string ledger = R"({"type":"ledger","step":0,"schema":1})"
                       "\n";
  for (const int step : {1, 20, 40}) {
    ledger += fmt::format(
        R"({{"type":"operand","step":{},"layer":"blocks.0.qkv","operand":"x_fprop","format":"nvfp4 1x16",)"
        R"("emulated":true,"elements":64,"blocks":4,"amax":4.25,"scale":0.5,"underflowed_share":0.0725,)"
        R"("saturated_share":0,"non_finite_share":0,"zero_scale_share":0,"relative_mse":0.01,"snr_db":20.5}})"
        "\n",
        step);
  }
  run.file("ledger.jsonl", ledger);
  for (int rank = 0; rank < 2; ++rank) {
    std::string rows;
    for (int step = 10; step <= 40; step += 10) {
      const std::string window = fmt::format(R"("step":{},"steps":10,"rank":{})", step, rank);
      rows += R"({"type":"phase",)" + window +
              R"(,"phase":"attn","layer":0,"pass":"forward","ms":512.5,"calls":10})"
              "\n";
      rows += R"({"type":"gemm",)" + window +
              R"(,"layer":0,"op":"up","pass":"fprop","m":128,"n":256,"k":384,"format_a":"nvfp4",)"
              R"("format_b":"nvfp4","emulated":true,"calls":20,"ms":41.5})"
              "\n";
      rows +=
          R"({"type":"comm",)" + window +
          R"(,"group":"data","op":"reduce_scatter","calls":30,"bytes":123456,"total_ms":60,"exposed_ms":12})"
          "\n";
    }
    rows +=
        fmt::format(R"({{"type":"memory","step":1,"rank":{},"owner":"weights","bytes":7654321}})"
                    "\n",
                    rank);
    run.file(fmt::format("metrics.rank{:05}.jsonl", rank), rows);
  }
  const report::Run read = run.read();
  return report_json({&read, 1});
}

// A figure as people read it: "4,320", "59.62 GFLOP/s", "12.5 %", "118.5 ms"; and half a unit of
// its last digit.
struct Figure {
  double value = 0, tolerance = 0;
};
Figure parse(std::string text) {
  std::erase(text, ',');
  size_t end = 0;
  Figure figure{.value = std::stod(text, &end), .tolerance = 0.5};
  const std::string digits = text.substr(0, end),
                    unit = end < text.size() ? text.substr(end + 1) : "";
  const size_t point = digits.find('.');
  const size_t e = digits.find('e');
  if (point != std::string::npos) {
    figure.tolerance *= std::pow(10, -static_cast<double>(std::min(e, digits.size()) - point - 1));
  }
  if (e != std::string::npos) figure.tolerance *= std::stod("1" + digits.substr(e));
  double scale = unit == "%" ? 0.01 : 1;
  const std::string prefixes = "kMGTP";
  if (unit.find("FLOP") != std::string::npos || unit.ends_with('B') || unit.ends_with("B/s")) {
    const size_t prefix = prefixes.find(unit[0]);
    if (prefix != std::string::npos) scale = std::pow(1000, static_cast<double>(prefix + 1));
  }
  return {figure.value * scale, figure.tolerance * scale * 1.001};
}

TEST(ReportBrowser, FiguresAreThoseOfTheJsonAndNothingIsLogged) {
  const std::string chromium = browser();
  if (chromium.empty()) {
    GTEST_SKIP() << "no Chromium here: apt-get install chromium (Debian) makes this test run";
  }
  const Json report = full_report();
  const data::TempDir folder;
  data::write_file(folder / "report.html", report_html(report));
  const std::string log = folder / "log.txt";
  const std::string dom =
      test::output_of(fmt::format("'{}' --headless=new --disable-gpu {} --user-data-dir='{}' "
                                  "--enable-logging=stderr --dump-dom "
                                  "'file://{}' 2> '{}'",
                                  chromium, geteuid() == 0 ? "--no-sandbox" : "",
                                  folder / "profile", folder / "report.html", log));
  const std::string said = data::read_file(log);
  EXPECT_EQ(std::string::npos, said.find("CONSOLE")) << said;

  size_t n = 0;
  const std::regex element(R"re(data-p="([^"]+)">([^<]*)<)re");
  for (std::sregex_iterator at(dom.begin(), dom.end(), element), end; at != end; ++at, ++n) {
    const std::string pointer = (*at)[1], text = (*at)[2];
    const Json& value = report.at(Json::json_pointer(pointer));
    ASSERT_TRUE(value.is_number()) << pointer;
    const Figure figure = parse(text);
    EXPECT_NEAR(value.get<double>(), figure.value, figure.tolerance)
        << pointer << " shown as " << text;
  }
  EXPECT_GT(n, 80u) << dom.substr(0, 2000);
  for (const char* pointer :
       {"/runs/0/step_time/p50_ms", "/runs/0/precision/gemms/kinds/0/lost_ms",
        "/runs/0/comm/collectives/rows/0/exposed_ms", "/runs/0/memory/by_owner/owners/0/mean_bytes",
        "/runs/0/goodput/buckets/0/s", "/runs/0/ranks/ranks/1/score"}) {
    EXPECT_NE(std::string::npos, dom.find(fmt::format("data-p=\"{}\"", pointer))) << pointer;
  }
  // A title for who hears the page; nothing undefined in what others read.
  const std::string page = dom.substr(0, dom.find("<script"));
  EXPECT_NE(std::string::npos, page.find("role=\"img\" aria-label=\"Time by phase"));
  for (const char* wrong : {"undefined", "NaN", "[object"}) {
    EXPECT_EQ(std::string::npos, page.find(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace qstep::trainer::report::testing
