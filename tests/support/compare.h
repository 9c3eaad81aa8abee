// What the tests of operations share: reproducible inputs, tensors between sentinels, comparison
// with FP64 under a stated bound, equality of bits, finite differences.
#pragma once

#include <omp.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/tensor.h"
#include "precision/philox.h"

namespace qstep::test {

using ops::Dtype;
using ops::Tensor;

// Unit roundoffs: one correctly rounded operation is off by at most |result| times this.
inline constexpr double kF32Roundoff = 0x1p-24;
inline constexpr double kBf16Roundoff = 0x1p-8;
// Of the last rounding of an output. Results in FP32's subnormal range are off by up to 2^-150
// instead.
constexpr double roundoff(Dtype dtype) {
  return dtype == Dtype::kBf16 ? kBf16Roundoff : kF32Roundoff;
}

// A stream of numbers that depends on its literal seed alone.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  uint32_t bits();
  double uniform(double low, double high);     // [low, high)
  int64_t integer(int64_t low, int64_t high);  // [low, high]

 private:
  uint64_t seed_;
  uint32_t counter_ = 0;
};

// A matrix with sentinels before it, behind it and in the `gap` elements between its rows. Its
// elements start as NaN (integers as -1), so that one an operation forgets to write shows.
class Guarded {
 public:
  Guarded(Dtype dtype, int64_t rows, int64_t cols, int64_t gap = 0);

  Guarded(Guarded&&) = default;
  Guarded& operator=(Guarded&&) = default;

  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }

  // Rounded to the element type.
  Guarded& fill(Random& random, double low, double high);
  Guarded& fill(double value);
  Guarded& assign(const std::vector<double>& values);  // row by row
  void set(int64_t row, int64_t col, double value);
  double at(int64_t row, int64_t col) const;

  std::vector<double> values() const;   // row by row
  std::vector<std::byte> bits() const;  // the elements only, row by row
  void expect_guards_intact(std::string_view what) const;

 private:
  std::byte* element(int64_t row, int64_t col) const;

  std::vector<std::byte> memory_;
  Tensor tensor_;
};

// Every element: |found - expected| <= bound(index). Reports the first that is not, and how many.
void expect_within(const std::vector<double>& expected, const std::vector<double>& found,
                   const std::function<double(size_t)>& bound, std::string_view what);

// The same with |found - expected| <= relative |expected| + absolute.
struct Bound {
  double relative = 0;
  double absolute = 0;
};
void expect_within(const std::vector<double>& expected, const std::vector<double>& found,
                   Bound bound, std::string_view what);

// The same elements, bit for bit.
void expect_same_bits(const Guarded& expected, const Guarded& found, std::string_view what);

// `run` returns the bits of everything it computed: must be the same at 1, 2 and 3 threads, and
// again.
void expect_same_bits_at_any_threads(const std::function<std::vector<std::byte>()>& run,
                                     std::string_view what);

// `gradient` is that of f at x, by central differences in FP64.
void expect_gradient(const std::function<double(const std::vector<double>&)>& f,
                     std::vector<double> x, const std::vector<double>& gradient,
                     std::string_view what);

// Appends the bits of several tensors.
template <class... G>
std::vector<std::byte> bits_of(const G&... tensors) {
  std::vector<std::byte> all;
  const auto append = [&](const Guarded& g) {
    const std::vector<std::byte> bits = g.bits();
    all.insert(all.end(), bits.begin(), bits.end());
  };
  (append(tensors), ...);
  return all;
}

}  // namespace qstep::test
