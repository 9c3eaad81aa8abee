// Figures for people: 1,234,567, 467 GFLOP/s, 2.84 GB, 124.4 M, 3m12s.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

namespace qstep::trainer {

// 8,030,261,248
inline std::string with_commas(int64_t n) {
  std::string text = fmt::format("{}", n);
  const int64_t first_digit = text[0] == '-' ? 1 : 0;
  for (int64_t at = static_cast<int64_t>(text.size()) - 3; at > first_digit; at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

// Four digits and a power of 1000: "467.0 GFLOP/s" of (4.67e11, "FLOP/s").
inline std::string si_text(double value, std::string_view unit) {
  constexpr std::array<std::string_view, 7> kPrefixes{"", "k", "M", "G", "T", "P", "E"};
  size_t prefix = 0;
  while (value >= 1000 && prefix + 1 < kPrefixes.size()) {
    value /= 1000;
    ++prefix;
  }
  return fmt::format("{:.4g} {}{}", value, kPrefixes[prefix], unit);
}

// Parameters and tokens: "705 k", "124.4 M", "8.03 B" (billions, not the G of units).
inline std::string count_text(int64_t n) {
  std::string text = si_text(static_cast<double>(n), "");
  if (text.ends_with('G')) text.back() = 'B';
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

// "57.2 %"; "n/a" for what is not known.
inline std::string share_text(double share) {
  return std::isfinite(share) ? fmt::format("{:.1f} %", 100 * share) : "n/a";
}

inline std::string bytes_text(int64_t bytes) { return si_text(static_cast<double>(bytes), "B"); }

// "2h05m", "3m12s", "41s"
inline std::string duration_text(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

}  // namespace qstep::trainer
