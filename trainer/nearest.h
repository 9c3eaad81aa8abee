// "Did you mean": the entry of a list that is closest to what was typed.
#pragma once

#include <algorithm>
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

}  // namespace qstep::trainer
