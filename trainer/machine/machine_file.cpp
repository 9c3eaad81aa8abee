// A machine of the user's own, from TOML.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

#include "ops/error.h"
#include "trainer/base/nearest.h"
#include "trainer/machine/machines.h"

namespace qstep::trainer {

namespace {

constexpr double kTera = 1e12, kGiga = 1e9;

// Takes keys out of one table; what nobody asked for is unknown.
class Fields {
 public:
  Fields(const toml::table& table, std::string prefix, std::vector<std::string>& problems)
      : table_(table), prefix_(std::move(prefix)), problems_(problems) {}

  std::string text(const std::string& key) {
    const toml::node* node = find(key);
    const auto value = node ? node->value<std::string>() : std::nullopt;
    if (!value || value->empty()) {
      problem(key, node, "takes text: write {} = \"...\"");
      return {};
    }
    return *value;
  }

  // Positive, at most `limit`.
  double number(const std::string& key, double limit = INFINITY) {
    const toml::node* node = find(key);
    const auto value = node && node->is_number() ? node->value<double>() : std::nullopt;
    if (value && *value > 0 && *value <= limit) return *value;
    problem(key, node,
            std::isinf(limit) ? "takes a number above 0: write {} = ..."
                              : fmt::format("takes a number in (0, {}]: write {{}} = ...", limit));
    return 1;
  }

  int count(const std::string& key) {
    const toml::node* node = find(key);
    const auto value = node && node->is_integer() ? node->value<int64_t>() : std::nullopt;
    if (value && *value >= 1 && *value <= (1 << 20)) return static_cast<int>(*value);
    problem(key, node, "takes a whole number of 1 or more: write {} = 8");
    return 1;
  }

  const toml::table* table(const std::string& key) {
    const toml::node* node = find(key);
    return node ? node->as_table() : nullptr;
  }
  const std::string& prefix() const { return prefix_; }
  bool has(const std::string& key) const { return table_.contains(key); }

  void refuse_unknown() {
    for (const auto& [key, node] : table_) {
      if (known_.contains(std::string(key.str()))) continue;
      problems_.push_back(fmt::format("line {}: {}{} is not a key of a machine; the nearest is {}",
                                      node.source().begin.line, prefix_, key.str(),
                                      nearest(key.str(), known_)));
    }
  }

  void problem(const std::string& key, const toml::node* node, const std::string& what) {
    const std::string full = prefix_ + key;
    problems_.push_back(node == nullptr ? fmt::format("{} is missing: it {}", full,
                                                      fmt::format(fmt::runtime(what), key))
                                        : fmt::format("line {}: {} {}", node->source().begin.line,
                                                      full, fmt::format(fmt::runtime(what), key)));
  }

 private:
  const toml::node* find(const std::string& key) {
    known_.insert(key);
    return table_.get(key);
  }

  const toml::table& table_;
  std::string prefix_;
  std::vector<std::string>& problems_;
  std::set<std::string> known_;
};

// [memory] and the like: a peak under `key`, what is attained of it, and who says so.
Rate read_rate(Fields& parent, const std::string& section, const std::string& key, double unit,
               std::vector<std::string>& problems, int64_t* size_bytes = nullptr) {
  const toml::table* table = parent.table(section);
  if (table == nullptr) {
    parent.problem(section, nullptr, "is a section: [{}] with " + key + ", share and source");
    return {};
  }
  Fields fields(*table, parent.prefix() + section + ".", problems);
  const double peak = fields.number(key) * unit;
  const double share = fields.number("share", 1);
  const Rate rate{peak, share, fields.text("source")};
  if (size_bytes != nullptr) *size_bytes = static_cast<int64_t>(fields.number("gb") * kGiga);
  fields.refuse_unknown();
  return rate;
}

MachineModel read(const toml::table& root, std::vector<std::string>& problems) {
  MachineModel m;
  Fields fields(root, "", problems);
  m.name = fields.text("name");
  m.title = m.name;
  m.gpus_per_node = fields.count("gpus_per_node");
  m.gpus_per_link = fields.has("gpus_per_link") ? fields.count("gpus_per_link") : m.gpus_per_node;
  if (fields.has("capability")) m.capability = fields.count("capability");
  m.memory = read_rate(fields, "memory", "tb_per_s", kTera, problems, &m.memory_bytes);
  m.link = read_rate(fields, "link", "gb_per_s", kGiga, problems);
  if (fields.has("network")) m.network = read_rate(fields, "network", "gb_per_s", kGiga, problems);
  if (const toml::table* table = fields.table("attention")) {
    Fields attention(*table, "attention.", problems);
    m.attention_forward = attention.number("forward", 1);
    m.attention_backward = attention.number("backward", 1);
    m.attention_source = attention.text("source");
    attention.refuse_unknown();
  } else {
    fields.problem("attention", nullptr,
                   "is a section: [{}] with forward and backward (shares of the bf16 peak at T = "
                   "8192) and source");
  }
  if (const toml::table* table = fields.table("launch")) {
    Fields launch(*table, "launch.", problems);
    m.launch_s = launch.number("us") * 1e-6;
    m.launch_source = launch.text("source");
    launch.refuse_unknown();
  }
  const toml::table* products = fields.table("products");
  if (products == nullptr || !products->contains("bf16")) {
    fields.problem("products.bf16", nullptr,
                   "is a section: [{}] with tflops, share and source; also of other formats");
  } else {
    Fields formats(*products, "products.", problems);
    for (size_t i = 0; i < kProductFormatNames.size(); ++i) {
      const std::string format(kProductFormatNames[i]);
      if (!products->contains(format)) {
        formats.has(format);
        formats.table(format);
        continue;
      }
      m.products[i] = read_rate(formats, format, "tflops", kTera, problems);
    }
    formats.refuse_unknown();
  }
  fields.refuse_unknown();
  return m;
}

}  // namespace

MachineModel parse_machine(const std::string& toml_text, const std::string& origin) {
  std::vector<std::string> problems;
  MachineModel machine;
  try {
    const toml::table root = toml::parse(toml_text, origin);
    machine = read(root, problems);
  } catch (const toml::parse_error& e) {
    problems.push_back(
        fmt::format("line {}: {}", e.source().begin.line, std::string(e.description())));
  }
  if (problems.empty()) return machine;
  throw ops::Error(ops::ExitCode::kConfig,
                   fmt::format("{}:\n  {}", origin, fmt::join(problems, "\n  ")));
}

MachineModel read_machine_file(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) {
    throw ops::Error(ops::ExitCode::kConfig, fmt::format("--machine {}: cannot be read", path));
  }
  return parse_machine(text.str(), path);
}

}  // namespace qstep::trainer
