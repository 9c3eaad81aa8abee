// Markdown and HTML of a report: made from its JSON alone, with nothing from outside.
#include <gtest/gtest.h>

#include "tests/trainer/report_testing.h"
#include "trainer/report/report_html.h"
#include "trainer/report/report_markdown.h"

namespace qstep::trainer::report::testing {
namespace {

Json some_report(const std::string& recipe = "nvfp4", bool emulated = true) {
  MadeUpRun run;
  run.start(1, recipe, emulated);
  put_steps(run, 1, 40);
  run.evaluation(40, 8.123456);
  run.file("config.toml", "# </script><script>alert(1)</script> <!-- @page.css@\n");
  const report::Run read = run.read();
  return report_json({&read, 1});
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(ReportMarkdown, SaysWhatTheJsonSays) {
  const Json report = some_report();
  const std::string text = report_markdown(report);
  EXPECT_NE(std::string::npos, text.find(report.at("verdict").get<std::string>()));
  const Json& time = report.at("runs")[0].at("step_time");
  EXPECT_NE(std::string::npos,
            text.find(fmt::format("{:.4g} ms", time.at("p50_ms").get<double>())));
  EXPECT_NE(std::string::npos, text.find("8.1235"));
  EXPECT_NE(std::string::npos, text.find("Not available: one rank"));
}

TEST(ReportMarkdown, EveryHeadOfAnEmulatedRunSaysSo) {
  const std::string text = report_markdown(some_report());
  EXPECT_EQ(count_of(text, "a, nvfp4"), count_of(text, "a, nvfp4 (emulated)"));
  EXPECT_GT(count_of(text, "a, nvfp4 (emulated)"), 5u);
  EXPECT_EQ(0u, count_of(report_markdown(some_report("bf16", false)), "emulated"));
}

// The JSON of the page as a browser finds it: up to the first "</script".
std::string embedded_json(const std::string& html) {
  const std::string open = R"(<script type="application/json" id="data">)";
  const size_t begin = html.find(open) + open.size();
  return html.substr(begin, html.find("</script", begin) - begin);
}

TEST(ReportHtml, HoldsTheReportAndNothingThatEndsItsScript) {
  const Json report = some_report();
  const std::string html = report_html(report);
  EXPECT_EQ(report, Json::parse(embedded_json(html)));
  EXPECT_EQ(0u, count_of(html, "alert(1)</script>"));
  EXPECT_EQ(count_of(html, "<script"), count_of(html, "</script"));
}

TEST(ReportHtml, ReachesForNothingOutside) {
  const std::string html = report_html(some_report());
  for (const char* part : {"http://", "https://", "src=", "@import", "url(", "fetch(", "XMLHttp"}) {
    // The name of a language, not an address to load.
    const size_t allowed =
        std::string(part) == "http://" ? count_of(html, "http://www.w3.org/2000/svg") : 0;
    EXPECT_EQ(allowed, count_of(html, part)) << part;
  }
}

TEST(ReportHtml, TenThousandStepsFitIntoTwoMegabytes) {
  MadeUpRun run;
  run.start(1);
  for (int64_t s = 1; s <= 10000; ++s)
    run.step(s, 100.123456789 + static_cast<double>(s * s % 977));
  const report::Run read = run.read();
  EXPECT_LT(report_html(report_json({&read, 1})).size(), 2000000u);
}

}  // namespace
}  // namespace qstep::trainer::report::testing
