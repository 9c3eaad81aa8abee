// The arithmetic of a paired comparison in the order A B B A, B A A B, ...: neighbours are compared
// with each other, and a drift of the machine's speed that is linear over a block cancels between
// its two pairs. Times in, verdicts out.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "trainer/base/bootstrap.h"

namespace qstep::trainer {

enum class Side : uint8_t { kA, kB };

inline constexpr int64_t kSegmentsPerBlock = 4, kPairsPerBlock = 2;

// Whose turn segment 0, 1, ... of a comparison is: A B B A in even blocks, B A A B in odd ones.
Side side_of(int64_t segment);

// The same for both sides: how many segments of its side come before this one.
int64_t turn_of(int64_t segment);

// Of each whole block of these segments, in the order measured: log(A / B) of its first two
// segments and of its last two. What is left over counts nowhere. Values are positive.
std::vector<double> pair_logs(std::span<const double> segment_values);

// Mean of the two of each block.
std::vector<double> block_logs(std::span<const double> pair_logs);

enum class Verdict : uint8_t {
  kGain,          // B is faster by more than the threshold
  kRegression,    // B is slower by more than the threshold
  kNeutral,       // they differ by less than the threshold
  kInconclusive,  // the interval does not say
};
std::string_view verdict_name(Verdict verdict);

struct AbbaOptions {
  double threshold = 0.01;  // e: a gain of 1 + e and more, or of 1 - e and less, counts
  BootstrapOptions bootstrap{};
};

struct AbbaResult {
  int64_t blocks = 0;
  double gain = 1;       // exp(interquartile mean of the pairs' logs): above 1, B is faster
  Interval interval;     // of the gain: exp(its bootstrap over blocks)
  double deviation = 0;  // of what one block says of log gain: sqrt(blocks) times the error of all
  Verdict verdict = Verdict::kInconclusive;
  int64_t blocks_needed = 0;  // at this deviation and threshold, see blocks_needed
};

// Fewer blocks than this do not know their own spread: the verdict is then always inconclusive.
inline constexpr int64_t kMinBlocks = 8;
// Whether one side is faster at all, by more than the threshold or not: the interval leaves out 1.
inline bool differs(const AbbaResult& result) {
  return result.blocks >= kMinBlocks && (result.interval.low > 1 || result.interval.high < 1);
}

// Of at least one whole block.
AbbaResult judge(std::span<const double> pair_logs, const AbbaOptions& options);

// Blocks that find a difference of `threshold` in 80 % of experiments at a 5 % level:
// ((1.96 + 0.84) deviation / threshold)^2, rounded up, at least kMinBlocks.
int64_t blocks_needed(double deviation, double threshold);

}  // namespace qstep::trainer
