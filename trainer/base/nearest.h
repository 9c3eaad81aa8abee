// "Did you mean": the entries of a list, or the numbers, that are closest to what was typed.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qstep::trainer {

// Fewest insertions, deletions, substitutions and swaps of neighbours that turn a into b (optimal
// string alignment; Damerau 1964).
inline size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), current(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], before[j - 2] + 1);
      }
    }
    std::swap(before, previous);
    std::swap(previous, current);
  }
  return previous[b.size()];
}

// The first of the closest; empty for an empty list.
template <class Names>
std::string nearest(std::string_view typed, const Names& names) {
  std::string best;
  size_t best_distance = static_cast<size_t>(-1);
  for (const auto& name : names) {
    const size_t distance = edit_distance(typed, name);
    if (distance < best_distance) {
      best_distance = distance;
      best = name;
    }
  }
  return best;
}

// The entries of an ascending list that are next below and next above: "4 or 8", or the only one.
inline std::string nearest_numbers(const std::vector<int64_t>& list, int64_t value) {
  const auto above = std::upper_bound(list.begin(), list.end(), value);
  const auto below = std::lower_bound(list.begin(), list.end(), value);
  std::string text = below == list.begin() ? "" : fmt::format("{}", *(below - 1));
  if (above != list.end()) text += fmt::format("{}{}", text.empty() ? "" : " or ", *above);
  return text;
}

// The multiples of `step` around n, as "24 or 32"; 0 is none.
inline std::string multiples_around(int64_t n, int64_t step) {
  const int64_t below = n / step * step;
  return below == 0 ? fmt::format("{}", step) : fmt::format("{} or {}", below, below + step);
}

}  // namespace qstep::trainer
