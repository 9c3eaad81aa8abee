#include "trainer/bench/prediction.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace qstep::trainer {

namespace {

using Json = nlohmann::ordered_json;

// Of the segments that the parts are of: the last ones of whole blocks.
double mean_ms(const ComparePair& pair, Side side) {
  const auto whole =
      static_cast<int64_t>(pair.segments_ms.size()) / kSegmentsPerBlock * kSegmentsPerBlock;
  const int64_t wanted = pair.parts_of(side).segments;
  double sum = 0;
  int64_t n = 0;
  for (int64_t s = whole - 1; s >= 0 && n < wanted; --s) {
    if (side_of(s) != side) continue;
    sum += pair.segments_ms[static_cast<size_t>(s)];
    ++n;
  }
  return sum / static_cast<double>(n);
}

std::vector<LinearGain> linear_gains(const ComparePair& pair) {
  std::map<std::string, LinearGain> linears;
  for (const Side side : {Side::kA, Side::kB}) {
    for (const auto& [site, ms] : pair.parts_of(side).mean.sites) {
      LinearGain& linear = linears[site.op];
      const bool a = side == Side::kA;
      (site.is_quant() ? (a ? linear.quant_a_ms : linear.quant_b_ms)
                       : (a ? linear.gemms_a_ms : linear.gemms_b_ms)) += ms;
    }
  }
  std::vector<LinearGain> sorted;
  for (auto& [op, linear] : linears) {
    linear.op = op;
    sorted.push_back(std::move(linear));
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& x, const auto& y) { return x.net_ms() > y.net_ms(); });
  return sorted;
}

// Not a part of the prediction.
bool is_other(const std::string& category) {
  return category != category_name(Category::kQuant) && !category.starts_with("gemm_");
}

std::vector<CategoryChange> other_changes(const ComparePair& pair) {
  std::map<std::string, CategoryChange> changes;
  for (const Side side : {Side::kA, Side::kB}) {
    for (const auto& [category, ms] : pair.parts_of(side).mean.categories) {
      if (!is_other(category)) continue;
      CategoryChange& change = changes[category];
      (side == Side::kA ? change.a_ms : change.b_ms) = ms;
    }
  }
  std::vector<CategoryChange> sorted;
  for (auto& [category, change] : changes) {
    change.category = category;
    sorted.push_back(std::move(change));
  }
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& x, const auto& y) {
    return std::abs(x.change_ms()) > std::abs(y.change_ms());
  });
  return sorted;
}

}  // namespace

std::optional<Prediction> predict(const ComparePair& pair, double measured_gain) {
  if (pair.parts_of(Side::kA).segments == 0) return std::nullopt;
  Prediction p{.step_a_ms = mean_ms(pair, Side::kA),
               .step_b_ms = mean_ms(pair, Side::kB),
               .measured = measured_gain,
               .linears = linear_gains(pair),
               .others = other_changes(pair)};
  double saved = 0, won = 0;
  for (const LinearGain& linear : p.linears) {
    saved += linear.net_ms();
    won += std::max(0.0, linear.net_ms());
  }
  p.gain = p.step_a_ms / (p.step_a_ms - saved);
  p.winners_gain = p.step_a_ms / (p.step_a_ms - won);
  return p;
}

Json to_json(const Prediction& p) {
  Json json = {{"gain", p.gain},
               {"measured_gain", p.measured},
               {"difference", p.difference()},
               {"explained", p.explained()},
               {"winners_gain", p.winners_gain},
               {"step_a_ms", p.step_a_ms},
               {"step_b_ms", p.step_b_ms},
               {"linears", Json::array()},
               {"others", Json::array()}};
  for (const LinearGain& linear : p.linears) {
    json["linears"].push_back({{"op", linear.op},
                               {"gemms_a_ms", linear.gemms_a_ms},
                               {"gemms_b_ms", linear.gemms_b_ms},
                               {"quant_a_ms", linear.quant_a_ms},
                               {"quant_b_ms", linear.quant_b_ms},
                               {"net_ms", linear.net_ms()}});
  }
  for (const CategoryChange& other : p.others) {
    json["others"].push_back({{"category", other.category},
                              {"a_ms", other.a_ms},
                              {"b_ms", other.b_ms},
                              {"change_ms", other.change_ms()}});
  }
  return json;
}

std::string other_changes_text(const Prediction& p) {
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, p.others.size()); ++i) {
    text += fmt::format("{}{} {:+.3g} ms", i == 0 ? "" : ", ", p.others[i].category,
                        p.others[i].change_ms());
  }
  return text;
}

}  // namespace qstep::trainer
