// A run against the first one of the report.
#include <cmath>
#include <map>

#include "trainer/report/report_sections.h"

namespace qstep::trainer::report {

namespace {

double value_of(const Json& section, const char* key) {
  const auto found = section.find(key);
  return found != section.end() && found->is_number() ? found->get<double>() : kMissing;
}

// Validation losses by tokens.
std::map<int64_t, double> by_tokens(const Json& loss) {
  std::map<int64_t, double> losses;
  if (!loss.at("available").get<bool>() || !loss.at("validation").at("available").get<bool>()) {
    return losses;
  }
  const Json& points = loss.at("validation").at("curve");
  const int64_t tokens = loss.at("tokens_per_step");
  for (size_t i = 0; i < points.at("step").size(); ++i) {
    if (points.at("value")[i].is_null()) continue;
    losses[points.at("step")[i].get<int64_t>() * tokens] = points.at("value")[i].get<double>();
  }
  return losses;
}

// At the largest number of tokens that both were evaluated at.
Json loss_gap(const Json& first, const Json& other) {
  const std::map<int64_t, double> a = by_tokens(first), b = by_tokens(other);
  for (auto at = a.rbegin(); at != a.rend(); ++at) {
    const auto same = b.find(at->first);
    if (same == b.end()) continue;
    return {{"available", true},
            {"tokens", at->first},
            {"first", at->second},
            {"other", same->second},
            {"gap", same->second - at->second},
            {"of", "validation loss, nats, one seed each"}};
  }
  return missing("no evaluation of both at an equal number of tokens");
}

}  // namespace

Json compare_section(const Json& first, const Json& other) {
  const double a = value_of(first.at("step_time"), "p50_ms");
  const double b = value_of(other.at("step_time"), "p50_ms");
  const double per_s_a = value_of(first.at("throughput"), "tokens_per_s");
  const double per_s_b = value_of(other.at("throughput"), "tokens_per_s");
  const bool emulated = first.at("header").at("recipe").at("emulated").get<bool>() ||
                        other.at("header").at("recipe").at("emulated").get<bool>();
  return {{"available", true},
          {"first", first.at("name")},
          {"emulated", emulated},
          {"step_time_ratio", number(b / a)},
          {"tokens_per_s_ratio", number(per_s_b / per_s_a)},
          {"interval", missing("the runs were not interleaved, so that drift of the machine is in "
                               "the ratio; qstep compare takes turns")},
          {"speed_verdict",
           missing(emulated ? "an emulated format has the numbers of the format, not its speed"
                            : "no interval, no verdict: qstep compare")},
          {"loss", loss_gap(first.at("loss"), other.at("loss"))}};
}

}  // namespace qstep::trainer::report
