#include "tests/support/compare.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace qstep::test {

namespace {

constexpr std::byte kSentinel{0xFF};  // NaN in every type, so that reading a sentinel shows as well
constexpr int64_t kGuardBytes = 256;  // before and behind; several vector registers

}  // namespace

uint32_t Random::bits() {
  const precision::PhiloxWords words = precision::philox4x32(seed_, {{counter_ / 4, 0, 0, 0}});
  return words.w[counter_++ % 4];
}

double Random::uniform(double low, double high) {
  return low + (high - low) * (static_cast<double>(bits()) * 0x1p-32);
}

int64_t Random::integer(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
}

Guarded::Guarded(Dtype dtype, int64_t rows, int64_t cols, int64_t gap) {
  const int64_t ld = cols + gap;
  const int64_t bytes = rows * ld * ops::size_bytes(dtype);
  memory_.assign(static_cast<size_t>(bytes + 2 * kGuardBytes), kSentinel);
  tensor_ = {memory_.data() + kGuardBytes, dtype, rows, cols, ld};
  for (int64_t r = 0; r < rows; ++r) {
    std::memset(element(r, 0), 0xFF, static_cast<size_t>(cols * ops::size_bytes(dtype)));
  }
}

std::byte* Guarded::element(int64_t row, int64_t col) const {
  return static_cast<std::byte*>(tensor_.data) +
         (row * tensor_.ld + col) * ops::size_bytes(tensor_.dtype);
}

Guarded& Guarded::fill(Random& random, double low, double high) {
  for (int64_t r = 0; r < tensor_.rows; ++r) {
    for (int64_t c = 0; c < tensor_.cols; ++c) set(r, c, random.uniform(low, high));
  }
  return *this;
}

Guarded& Guarded::fill(double value) {
  return assign(std::vector<double>(static_cast<size_t>(tensor_.size()), value));
}

Guarded& Guarded::assign(const std::vector<double>& values) {
  ops::check_equal(tensor_.size(), static_cast<int64_t>(values.size()), "Guarded::assign");
  for (int64_t r = 0; r < tensor_.rows; ++r) {
    for (int64_t c = 0; c < tensor_.cols; ++c) {
      set(r, c, values[static_cast<size_t>(r * tensor_.cols + c)]);
    }
  }
  return *this;
}

void Guarded::set(int64_t row, int64_t col, double value) {
  std::byte* const p = element(row, col);
  if (tensor_.dtype == Dtype::kI32) {
    const auto integer = static_cast<int32_t>(value);
    std::memcpy(p, &integer, sizeof integer);
  } else if (tensor_.dtype == Dtype::kBf16) {
    const precision::Bf16 rounded = precision::to_bf16(static_cast<float>(value));
    std::memcpy(p, &rounded, sizeof rounded);
  } else {
    const auto rounded = static_cast<float>(value);
    std::memcpy(p, &rounded, sizeof rounded);
  }
}

double Guarded::at(int64_t row, int64_t col) const {
  const std::byte* const p = element(row, col);
  if (tensor_.dtype == Dtype::kI32) {
    int32_t integer;
    std::memcpy(&integer, p, sizeof integer);
    return integer;
  }
  if (tensor_.dtype == Dtype::kBf16) {
    precision::Bf16 rounded;
    std::memcpy(&rounded, p, sizeof rounded);
    return static_cast<double>(precision::to_float(rounded));
  }
  float value;
  std::memcpy(&value, p, sizeof value);
  return static_cast<double>(value);
}

std::vector<double> Guarded::values() const {
  std::vector<double> all;
  all.reserve(static_cast<size_t>(tensor_.size()));
  for (int64_t r = 0; r < tensor_.rows; ++r) {
    for (int64_t c = 0; c < tensor_.cols; ++c) all.push_back(at(r, c));
  }
  return all;
}

std::vector<std::byte> Guarded::bits() const {
  std::vector<std::byte> all;
  for (int64_t r = 0; r < tensor_.rows; ++r) {
    all.insert(all.end(), element(r, 0), element(r, tensor_.cols));
  }
  return all;
}

void Guarded::expect_guards_intact(std::string_view what) const {
  std::vector<bool> ours(memory_.size(), false);
  for (int64_t r = 0; r < tensor_.rows; ++r) {
    const auto first = element(r, 0) - memory_.data();
    std::fill(ours.begin() + first, ours.begin() + (element(r, tensor_.cols) - memory_.data()),
              true);
  }
  for (size_t i = 0; i < memory_.size(); ++i) {
    if (!ours[i] && memory_[i] != kSentinel) {
      ADD_FAILURE() << fmt::format("{}: wrote outside the tensor, {} bytes from its start", what,
                                   static_cast<int64_t>(i) - kGuardBytes);
      return;
    }
  }
}

void expect_within(const std::vector<double>& expected, const std::vector<double>& found,
                   const std::function<double(size_t)>& bound, std::string_view what) {
  ASSERT_EQ(expected.size(), found.size()) << what;
  size_t n_outside = 0;
  std::string first;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double allowed = bound(i);
    if (expected[i] == found[i]) continue;                       // also the same infinity
    if (std::fabs(found[i] - expected[i]) <= allowed) continue;  // false for a NaN
    if (std::isnan(expected[i]) && std::isnan(found[i])) continue;
    if (n_outside++ == 0) {
      first =
          fmt::format("index {}: expected {:.9g}, found {:.9g}, difference {:.3g}, bound {:.3g}", i,
                      expected[i], found[i], found[i] - expected[i], allowed);
    }
  }
  EXPECT_EQ(n_outside, 0u) << what << ": outside the bound, " << first;
}

void expect_within(const std::vector<double>& expected, const std::vector<double>& found,
                   Bound bound, std::string_view what) {
  expect_within(
      expected, found,
      [&](size_t i) { return bound.relative * std::fabs(expected[i]) + bound.absolute; }, what);
}

void expect_same_bits(const Guarded& expected, const Guarded& found, std::string_view what) {
  const std::vector<std::byte> a = expected.bits(), b = found.bits();
  ASSERT_EQ(a.size(), b.size()) << what;
  const auto difference = std::mismatch(a.begin(), a.end(), b.begin());
  if (difference.first == a.end()) return;
  const auto index = (difference.first - a.begin()) / ops::size_bytes(expected.tensor().dtype);
  const auto i = static_cast<size_t>(index);
  ADD_FAILURE() << fmt::format("{}: bits differ first at index {}: expected {:a}, found {:a}", what,
                               index, expected.values()[i], found.values()[i]);
}

void expect_same_bits_at_any_threads(const std::function<std::vector<std::byte>()>& run,
                                     std::string_view what) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const std::vector<std::byte> expected = run();
  for (const int threads : {2, 3, 3}) {
    omp_set_num_threads(threads);
    EXPECT_TRUE(run() == expected) << what << ": other bits at " << threads << " threads";
  }
  omp_set_num_threads(before);
}

void expect_gradient(const std::function<double(const std::vector<double>&)>& f,
                     std::vector<double> x, const std::vector<double>& gradient,
                     std::string_view what) {
  ASSERT_EQ(x.size(), gradient.size()) << what;
  // With step h the difference quotient is off by h^2/6 |f'''| + |f| 2^-53 / h: both near 1e-10 for
  // functions of order one. Wrong formulas are wrong by far more than kBound.
  constexpr double kStep = 1e-5;
  constexpr double kBound = 1e-7;
  double largest = 1;
  for (const double g : gradient) largest = std::max(largest, std::fabs(g));
  for (size_t i = 0; i < x.size(); ++i) {
    const double center = x[i];
    x[i] = center + kStep;
    const double above = f(x);
    x[i] = center - kStep;
    const double below = f(x);
    x[i] = center;
    const double quotient = (above - below) / (2 * kStep);
    ASSERT_NEAR(quotient, gradient[i], kBound * largest) << what << ": d/dx at index " << i;
  }
}

}  // namespace qstep::test
