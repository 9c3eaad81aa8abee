// Where the steps of a segment went: by category, and by linear layer with the quantization that
// its operands needed. What Amdahl's prediction is made from (prediction.h).
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "trainer/timing/timeline.h"

namespace qstep::trainer {

// Calls of one kind in a linear layer of a block.
struct SitePart {
  int64_t layer = -1;              // -1 of "scales"
  std::string op;                  // "qkv"; "scales": the update of delayed ones
  std::string pass;                // "fprop", "dgrad", "wgrad"; "quant": of all its operands
  int64_t m = 0, n = 0, k = 0;     // of a GEMM; 0 of "quant"
  std::string format_a, format_b;  // of a GEMM

  bool is_quant() const { return pass == "quant"; }
  friend auto operator<=>(const SitePart&, const SitePart&) = default;
};

// Milliseconds of a step.
struct StepParts {
  std::map<std::string, double> categories;  // as breakdown_ms has them
  std::map<SitePart, double> sites;
};

// The median over the steps of a segment, of each part by itself: a step that the machine
// interrupted then counts no more than it does in the step time.
class SegmentParts {
 public:
  // The last step of a timeline at level ops.
  void add(const Timeline& timeline);
  StepParts medians() const;

 private:
  // Of the steps that had the part; the others took no time for it.
  std::map<std::string, std::vector<double>> categories_;
  std::map<SitePart, std::vector<double>> sites_;
  size_t steps_ = 0;
};

// The mean over segments.
struct MeanParts {
  int64_t segments = 0;
  StepParts mean;

  void add(const StepParts& segment);
};

}  // namespace qstep::trainer
