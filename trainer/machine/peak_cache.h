// What was measured of this processor, kept for later runs in $XDG_CACHE_HOME/qstep/peaks.json, or
// ~/.cache/qstep/peaks.json: {"schema": 1, "peaks": [{key and figures}, ...]}. Losing the file
// costs a measurement, so nothing about it is ever an error: where it cannot be read it is empty,
// and where it cannot be written (a home that is read-only, no home) nothing is kept.
#pragma once

#include <optional>
#include <string>

#include "trainer/machine/peak.h"

namespace qstep::trainer {

// What a measurement holds for.
struct PeakKey {
  std::string cpu;
  int64_t threads = 1;
  int64_t ranks = 1;  // that measured at once on the host
  std::string build;  // instructions, compiler and matrix library

  friend bool operator==(const PeakKey&, const PeakKey&) = default;
};
PeakKey peak_key(int64_t threads, int64_t ranks);  // of this processor and build

struct KeptPeak {
  PeakRates rates;           // the best of them
  int64_t measurements = 0;  // so many were made
};

class PeakCache {
 public:
  explicit PeakCache(std::string path) : path_(std::move(path)) {}

  std::optional<KeptPeak> find(const PeakKey& key) const;
  // Joins the measurement to those of its key, of which the better of each figure stays; one of
  // another build goes. Returns what is kept now.
  KeptPeak add(const PeakKey& key, const PeakRates& measured) const;

 private:
  std::string path_;
};

// The user's; a path of "" keeps nothing.
PeakCache user_peak_cache();

}  // namespace qstep::trainer
