#include "trainer/report/peer_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string_view>

#include "ops/error.h"

namespace qstep::trainer::report {

namespace {

// Where the number stands.
enum class Place : uint8_t { kBehind, kAhead };

struct Field {
  double Step::*value;  // null: the number of the step itself
  std::string_view text;
  Place place = Place::kBehind;
  double factor = 1;
};

// A line is the tool's when it holds `mark` and a number of the step.
struct Tool {
  std::string_view name, mark, times;  // times: what a time of its lines is
  std::vector<Field> fields;
};

constexpr double Step::*kStep = nullptr;

// As the format strings of the tools print them. In the order of looking: marks of later ones may
// stand in lines of earlier ones.
const std::vector<Tool>& tools() {
  static const std::vector<Tool> kTools = {
      {"Megatron-LM",
       "elapsed time per iteration (ms):",
       "means over the steps since the line before",
       {{kStep, "] iteration"},
        {&Step::step_ms, "elapsed time per iteration (ms):"},
        {&Step::loss, "lm loss:"},
        {&Step::lr, "learning rate:"},
        {&Step::grad_norm, "grad norm:"},
        {&Step::model_flops_per_s_per_device, "throughput per GPU (TFLOP/s/GPU):", Place::kBehind,
         1e12}}},
      {"MaxText",
       "completed step:",
       "of each step",
       {{kStep, "completed step:"},
        {&Step::step_ms, "seconds:", Place::kBehind, 1e3},
        {&Step::loss, ", loss:"},
        {&Step::tokens_per_s_per_device, "Tokens/s/device:"},
        {&Step::model_flops_per_s_per_device, "TFLOP/s/device:", Place::kBehind, 1e12}}},
      {"torchtitan",
       "tps:",
       "not in the log",
       {{kStep, "step:"},
        {&Step::loss, "loss:"},
        {&Step::grad_norm, "grad_norm:"},
        {&Step::tokens_per_s_per_device, "tps:"},
        {&Step::model_flops_per_s_per_device, "tflops:", Place::kBehind, 1e12}}},
      {"llmq",
       "[T] step",
       "of each step",
       {{kStep, "[T] step"},
        {&Step::step_ms, "time:"},
        {&Step::loss, "| loss"},
        {&Step::grad_norm, "| norm"},
        {&Step::tokens_per_s, "| tps"}}},
      {"llm.c",
       " tok/s",
       "of each step",
       {{kStep, "step "},
        {&Step::step_ms, " ms", Place::kAhead},
        {&Step::loss, "| loss"},
        {&Step::grad_norm, "| norm"},
        {&Step::lr, "| lr"},
        {&Step::tokens_per_s, " tok/s", Place::kAhead}}},
  };
  return kTools;
}

bool of_number(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == ',' || c == '-' ||
         c == '+';
}

// "12,345" and "1e-4" too; NaN for "nan".
std::optional<double> parse(std::string text) {
  std::erase(text, ',');
  double value = 0;
  const char* const begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error != std::errc() || end == begin) return std::nullopt;
  return value;
}

std::optional<double> number_of(std::string_view line, const Field& field) {
  const size_t at = line.find(field.text);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view word;
  if (field.place == Place::kBehind) {
    word = line.substr(at + field.text.size());
    word.remove_prefix(std::min(word.find_first_not_of(' '), word.size()));
    word = word.substr(
        0,
        static_cast<size_t>(std::find_if_not(word.begin(), word.end(), of_number) - word.begin()));
  } else {
    word = line.substr(0, at);
    const auto first = std::find_if_not(word.rbegin(), word.rend(), of_number);
    word.remove_prefix(static_cast<size_t>(word.rend() - first));
  }
  const std::optional<double> value = parse(std::string(word));
  return value ? std::optional(*value * field.factor) : std::nullopt;
}

// Without the colours of a terminal.
std::string plain_text(const std::string& line) {
  std::string text;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      while (i < line.size() && line[i] != 'm') ++i;
    } else if (line[i] != '\r') {
      text += line[i];
    }
  }
  return text;
}

std::optional<Step> step_of(const std::string& line, const Tool& tool) {
  if (line.find(tool.mark) == std::string::npos) return std::nullopt;
  Step step;
  for (const Field& field : tool.fields) {
    const std::optional<double> number = number_of(line, field);
    if (field.value == kStep) {
      if (!number || !(*number >= 0)) return std::nullopt;
      step.step = static_cast<int64_t>(*number);
    } else if (number) {
      step.*field.value = *number;
    }
  }
  return step;
}

std::string known_tools() {
  std::string names;
  for (const Tool& tool : tools())
    names += fmt::format("{}{}", names.empty() ? "" : ", ", tool.name);
  return names;
}

}  // namespace

Run read_peer_log(const std::string& path) {
  std::ifstream in(path);
  if (!in) {
    throw ops::Error(ops::ExitCode::kConfig, fmt::format("{}: cannot be read", path));
  }
  Run run;
  run.path = path;
  run.name = std::filesystem::path(path).stem();
  const Tool* tool = nullptr;
  std::map<int64_t, Step> steps;
  for (std::string line; std::getline(in, line);) {
    const std::string text = plain_text(line);
    for (const Tool& candidate : tools()) {
      if (tool != nullptr && tool != &candidate) continue;
      const std::optional<Step> step = step_of(text, candidate);
      if (!step) continue;
      tool = &candidate;
      steps[step->step] = *step;
      break;
    }
  }
  if (tool == nullptr) {
    throw ops::Error(ops::ExitCode::kConfig,
                     fmt::format("{}: no line is of a log of {}; a folder of qstep train is named "
                                 "without --import",
                                 path, known_tools()));
  }
  for (const auto& [number, step] : steps) run.steps.push_back(step);
  run.peer = PeerLog{.tool = std::string(tool->name), .times = std::string(tool->times)};
  return run;
}

}  // namespace qstep::trainer::report
