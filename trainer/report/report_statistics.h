// What the sections of a report share: statistics, curves short enough to be drawn, and the way a
// missing item is said.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace qstep::trainer::report {

using Json = nlohmann::ordered_json;

// {"available": false, "reason": reason}
Json missing(const std::string& reason);

// The number, or null where it is not finite.
Json number(double x);
// With 6 significant digits, for curves: fewer bytes, and no statistic is made from them.
Json short_number(double x, int digits = 6);

// Of the sorted values, linear between order statistics: position p (n - 1) from 0.
double quantile(std::span<const double> sorted, double p);
// Not sorted; NaN of none.
double median(std::vector<double> values);

// {n, mean, sd (of n - 1), cv, min, p5, p50, p90, p95, p99, max}; keys but n and cv end with
// `unit`, "_ms" say. All but n null without values; sd and cv null below two.
Json summary(std::vector<double> values, const std::string& unit);

// {n_points, step: [...], value: [...]}: all points, or of each of kBuckets parts of them the
// smallest and the largest, in the order of steps, first and last always. A value that is not
// finite stays, as null.
Json curve(const std::vector<int64_t>& steps, const std::vector<double>& values);

// {edges: [...], counts: [...]} over equal bins from the smallest to the largest value, which both
// lie in one.
Json histogram(std::span<const double> values);

}  // namespace qstep::trainer::report
