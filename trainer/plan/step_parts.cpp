#include "trainer/plan/step_parts.h"

#include "trainer/base/bootstrap.h"
#include "trainer/timing/breakdown.h"

namespace qstep::trainer {

namespace {

bool is_block_gemm(Category category) {
  return category >= Category::kGemmFp32 && category <= Category::kGemmFp8E5m2;
}

// Whose work a span is, by the label that its linear layer gave (labels.h).
SitePart site_of(const TimeSpan& span) {
  const size_t space = span.label.find(' ');
  SitePart site{.layer = span.layer,
                .op = std::string(span.label.substr(0, space)),
                .pass = "quant",
                .format_a = "",
                .format_b = ""};
  if (span.category == Category::kQuant) {
    if (span.layer < 0) site.op = "scales";  // delayed ones, of all layers at once
    return site;
  }
  site.pass = span.label.substr(space + 1);
  site.m = span.gemm.m;
  site.n = span.gemm.n;
  site.k = span.gemm.k;
  site.format_a = format_name(span.gemm.a);
  site.format_b = format_name(span.gemm.b);
  return site;
}

template <class Key>
std::map<Key, double> medians_of(const std::map<Key, std::vector<double>>& times, size_t steps) {
  std::map<Key, double> medians;
  for (const auto& [key, there] : times) {
    std::vector<double> all = there;
    all.resize(steps, 0.0);
    medians[key] = quantile(all, 0.5);
  }
  return medians;
}

// mean += (value - mean) / n, of a union of keys: what is not in a map is 0 there.
template <class Key>
void add_to(std::map<Key, double>& mean, const std::map<Key, double>& segment, int64_t n) {
  for (const auto& [key, value] : segment) mean.try_emplace(key, 0.0);
  for (auto& [key, value] : mean) {
    const auto found = segment.find(key);
    value += ((found == segment.end() ? 0.0 : found->second) - value) / static_cast<double>(n);
  }
}

}  // namespace

void SegmentParts::add(const Timeline& timeline) {
  constexpr double kMsPerNs = 1e-6;
  const Breakdown by_category = breakdown(timeline.spans(), timeline.step());
  for (size_t i = 0; i < by_category.size(); ++i) {
    if (by_category[i] != 0) {
      categories_[std::string(kCategoryNames[i])].push_back(by_category[i]);
    }
  }
  std::map<SitePart, int64_t> ns;
  for (const TimeSpan& span : timeline.spans()) {
    if (span.category == Category::kQuant || is_block_gemm(span.category)) {
      ns[site_of(span)] += span.own_ns();
    }
  }
  for (const auto& [site, sum] : ns) {
    sites_[site].push_back(static_cast<double>(sum) * kMsPerNs);
  }
  ++steps_;
}

StepParts SegmentParts::medians() const {
  return {.categories = medians_of(categories_, steps_), .sites = medians_of(sites_, steps_)};
}

void MeanParts::add(const StepParts& segment) {
  ++segments;
  add_to(mean.categories, segment.categories, segments);
  add_to(mean.sites, segment.sites, segments);
}

}  // namespace qstep::trainer
