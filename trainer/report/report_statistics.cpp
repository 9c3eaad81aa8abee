#include "trainer/report/report_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace qstep::trainer::report {

namespace {

constexpr size_t kBuckets = 300;  // two points each: as many as a chart is wide, in pixels
constexpr size_t kBins = 40;

}  // namespace

Json missing(const std::string& reason) { return {{"available", false}, {"reason", reason}}; }

Json number(double x) { return std::isfinite(x) ? Json(x) : Json(nullptr); }

Json short_number(double x, int digits) {
  if (!std::isfinite(x)) return nullptr;
  return std::strtod(fmt::format("{:.{}g}", x, digits).c_str(), nullptr);
}

double quantile(std::span<const double> sorted, double p) {
  if (sorted.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double position = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return quantile(values, 0.5);
}

Json summary(std::vector<double> values, const std::string& unit) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double x : values) sum += x;
  const double mean = sum / n;
  for (const double x : values) squares += (x - mean) * (x - mean);
  const double sd = values.size() < 2 ? NAN : std::sqrt(squares / (n - 1));
  Json json = {{"n", values.size()},
               {"mean" + unit, number(mean)},
               {"sd" + unit, number(sd)},
               {"cv", number(sd / mean)}};
  constexpr std::pair<const char*, double> kQuantiles[] = {
      {"min", 0},    {"p5", 0.05},  {"p50", 0.5}, {"p90", 0.9},
      {"p95", 0.95}, {"p99", 0.99}, {"max", 1}};
  for (const auto& [name, p] : kQuantiles) json[name + unit] = number(quantile(values, p));
  return json;
}

Json curve(const std::vector<int64_t>& steps, const std::vector<double>& values) {
  Json json = {{"n_points", steps.size()}, {"step", Json::array()}, {"value", Json::array()}};
  const auto put = [&](size_t i) {
    json["step"].push_back(steps[i]);
    json["value"].push_back(short_number(values[i]));
  };
  if (steps.size() <= 2 * kBuckets) {
    for (size_t i = 0; i < steps.size(); ++i) put(i);
    return json;
  }
  for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
    const size_t begin = bucket * steps.size() / kBuckets,
                 end = (bucket + 1) * steps.size() / kBuckets;
    std::vector<size_t> chosen;
    size_t low = begin, high = begin;
    for (size_t i = begin; i < end; ++i) {
      if (!std::isfinite(values[i])) {
        if (chosen.empty()) chosen.push_back(i);  // one gap says as much as many
        continue;
      }
      if (!(values[i] >= values[low])) low = i;
      if (!(values[i] <= values[high])) high = i;
    }
    chosen.insert(chosen.end(), {low, high});
    if (bucket == 0) chosen.push_back(0);
    if (bucket + 1 == kBuckets) chosen.push_back(steps.size() - 1);
    std::sort(chosen.begin(), chosen.end());
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    for (const size_t i : chosen) put(i);
  }
  return json;
}

Json histogram(std::span<const double> values) {
  Json json = {{"edges", Json::array()}, {"counts", Json::array()}};
  if (values.empty()) return json;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double width = (*high - *low) / kBins;
  std::vector<int64_t> counts(kBins);
  for (const double x : values) {
    const auto bin = width > 0 ? static_cast<size_t>((x - *low) / width) : 0;
    ++counts[std::min(bin, kBins - 1)];
  }
  for (size_t i = 0; i <= kBins; ++i) {
    json["edges"].push_back(short_number(*low + static_cast<double>(i) * width));
  }
  for (const int64_t count : counts) json["counts"].push_back(count);
  return json;
}

}  // namespace qstep::trainer::report
