#include "trainer/report/report_rows.h"

#include <algorithm>
#include <fstream>

#include "trainer/base/json_lines.h"

namespace qstep::trainer::report {

RowProblems for_each_row(const std::string& path,
                         const std::function<void(const std::string&, const Row&)>& f) {
  RowProblems found;
  std::ifstream in(path);
  int64_t number = 0;
  const auto take = [&](const std::string& type, const Row& row) {
    try {
      f(type, row);
    } catch (const std::invalid_argument& problem) {
      found.problems.push_back(fmt::format("{}:{}: {}", path, number, problem.what()));
    }
  };
  FlatRow flat;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.empty()) continue;
    if (flat.parse(line)) {
      const std::string_view type = flat.value("type");
      take(flat_value<std::string>(type.empty() ? "\"\"" : type).value_or(""), Row(flat));
      continue;
    }
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded() && (in.eof() || in.peek() == EOF)) {
      found.torn = true;
    } else if (!json.is_object()) {
      constexpr size_t kShown = 40;
      found.problems.push_back(
          fmt::format("{}:{}: not a JSON object: {}", path, number,
                      nlohmann::json(line.substr(0, kShown))
                          .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
    } else {
      take(type_of_row(json), Row(json));
    }
  }
  return found;
}

}  // namespace qstep::trainer::report
