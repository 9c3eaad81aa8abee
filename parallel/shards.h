// Who owns which part of what: cutting and intersecting ranges. Arithmetic only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/error.h"

namespace qstep::parallel {

// Elements [begin, end).
struct Range {
  int64_t begin = 0, end = 0;

  int64_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool operator==(const Range&) const = default;
};

// What both hold; empty, with begin = end, where that is nothing.
inline Range intersection(Range a, Range b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

// Part `part` of n things cut into n_parts runs whose sizes differ by at most one:
// [part n / n_parts, (part + 1) n / n_parts), rounded down. n n_parts must be below 2^63.
inline Range even_part(int64_t n, int64_t n_parts, int64_t part) {
  ops::check(n >= 0 && n_parts > 0 && part >= 0 && part < n_parts, "even_part: no such part");
  return {part * n / n_parts, (part + 1) * n / n_parts};
}

// Where n elements are cut into bounds.size() - 1 parts (comm.h: Bounds), as evenly as whole units
// of `unit` elements allow; the last unit may be short.
inline void even_bounds(std::span<int64_t> bounds, int64_t n, int64_t unit = 1) {
  ops::check(bounds.size() > 1 && unit > 0, "even_bounds: parts and unit");
  const auto n_parts = static_cast<int64_t>(bounds.size()) - 1;
  const int64_t n_units = (n + unit - 1) / unit;
  bounds[0] = 0;
  for (int64_t part = 0; part < n_parts; ++part) {
    bounds[static_cast<size_t>(part) + 1] =
        std::min(n, even_part(n_units, n_parts, part).end * unit);
  }
}
inline std::vector<int64_t> even_bounds(int64_t n, int n_parts, int64_t unit = 1) {
  std::vector<int64_t> bounds(static_cast<size_t>(n_parts) + 1);
  even_bounds(std::span(bounds), n, unit);
  return bounds;
}

}  // namespace qstep::parallel
