// How unusual a value is beside those before it: loss and gradient norm in the log line.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace qstep::trainer {

class OutlierScore {
 public:
  // z = (x - mean) / sd over the last kWindow finite values, this one included; NaN for one that is
  // not finite, before kFewest values and where all are equal.
  double add(double x) {
    if (!std::isfinite(x)) return kNone;
    if (values_.size() < kWindow) {
      values_.push_back(x);
    } else {
      values_[next_] = x;
      next_ = (next_ + 1) % kWindow;
    }
    if (values_.size() < kFewest) return kNone;
    const auto n = static_cast<double>(values_.size());
    double mean = 0, variance = 0;
    for (const double v : values_) mean += v / n;
    for (const double v : values_) variance += (v - mean) * (v - mean) / n;
    return variance > 0 ? (x - mean) / std::sqrt(variance) : kNone;
  }

 private:
  static constexpr size_t kWindow = 128, kFewest = 16;
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> values_;
  size_t next_ = 0;
};

}  // namespace qstep::trainer
