#include "trainer/report/report_html.h"

#include "ops/error.h"
#include "trainer/report/report_page.h"

namespace qstep::trainer::report {

namespace {

std::string_view file(std::string_view name) {
  for (const PageFile& page : page_files()) {
    if (page.name == name) return page.text;
  }
  throw ops::Error(ops::ExitCode::kInternal, fmt::format("the page lacks its {}", name));
}

// Inside a script element "</script>" and "<!--" would end it or change how it is read.
std::string json_in_html(const Json& report) {
  const std::string json = report.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string text;
  text.reserve(json.size());
  for (const char c : json) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

std::string report_html(const Json& report) {
  // Every "@name@" of the page is another file, or the data.
  const std::string_view page = file("page.html");
  std::string html;
  for (size_t at = 0; at < page.size();) {
    const size_t begin = page.find('@', at);
    if (begin == std::string_view::npos) return html.append(page.substr(at));
    const size_t end = page.find('@', begin + 1);
    html += page.substr(at, begin - at);
    const std::string_view name = page.substr(begin + 1, end - begin - 1);
    html += name == "report.json" ? json_in_html(report) : std::string(file(name));
    at = end + 1;
  }
  return html;
}

}  // namespace qstep::trainer::report
