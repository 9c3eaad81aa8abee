#include "trainer/report/report_files.h"

#include "trainer/base/durable_files.h"
#include "trainer/report/report_html.h"
#include "trainer/report/report_markdown.h"

namespace qstep::trainer::report {

std::string report_text(const Json& report) {
  return report.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_report(const std::string& folder, const Json& report) {
  CheckpointFiles files;
  files.create_folders(folder);
  files.replace_file(folder + "/report.json", report_text(report));
  files.replace_file(folder + "/report.md", report_markdown(report));
  files.replace_file(folder + "/report.html", report_html(report));
}

}  // namespace qstep::trainer::report
