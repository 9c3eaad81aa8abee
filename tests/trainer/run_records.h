// What a run left in its folder, for tests that compare runs.
#pragma once

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace qstep::trainer::testing {

inline std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The rows of one type in a file of JSON lines, the last of which may be unfinished.
inline std::vector<nlohmann::json> rows_of(const std::string& metrics, const std::string& type) {
  std::vector<nlohmann::json> rows;
  std::ifstream in(metrics);
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json row = nlohmann::json::parse(line, nullptr, false);
    if (row.is_object() && row.value("type", "") == type) rows.push_back(row);
  }
  return rows;
}

// What must not depend on how often the run was interrupted or on its number of ranks: rows without
// what clocks, memory and messages say.
inline std::vector<std::string> exact_part(const std::vector<nlohmann::json>& rows) {
  std::vector<std::string> exact;
  for (nlohmann::json row : rows) {
    for (const char* key :
         {"step_ms", "phases_ms", "tokens_per_s", "model_flops_per_s", "tflops_causal", "mfu_bf16",
          "sol", "peak_rss_bytes", "breakdown_ms", "comm_exposed_ms", "comm_busy_ms", "comm_bytes",
          "eval_ms", "save_ms"}) {
      row.erase(key);
    }
    exact.push_back(row.dump());
  }
  return exact;
}

}  // namespace qstep::trainer::testing
