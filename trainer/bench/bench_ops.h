// The operations of real training steps, each against what bounds it: its flops at the peak of
// their type, or its bytes at the memory's rate, whichever takes longer (op_work.h).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm.h"
#include "trainer/config/config.h"
#include "trainer/machine/machines.h"
#include "trainer/timing/timed_ops.h"

namespace qstep::trainer {

enum class OpBound : uint8_t { kFlops, kBytes };
inline constexpr std::array<std::string_view, 2> kOpBoundNames{"flops", "bytes"};

// Calls of a step that do the same: of one operation, of one layer's GEMM of one size, of one
// quantizer.
struct OpRow {
  std::string op;      // "gemm qkv fprop", "quantize", "adamw"
  std::string detail;  // "1024 x 2304 x 768 bf16"; what a quantizer makes; empty
  int64_t calls = 0;   // of a step, as the following
  double ms = 0;       // median of the steps
  OpWork work;
  ProductFormat format = ProductFormat::kFp32;  // what its flops need of the hardware
  double bound_ms = 0;                          // 0: not known, as a GPU's outside the table
  OpBound bound = OpBound::kBytes;

  double lost_ms() const { return ms - bound_ms; }
  double share() const { return bound_ms / ms; }  // of the bound; above 1 where a cache helped
  double bytes_per_s() const { return work.bytes / (1e-3 * ms); }
  double flops_per_s() const { return work.flops / (1e-3 * ms); }
};

struct OpsBench {
  std::vector<OpRow> rows;  // by what they lose to their bounds, the most first
  double step_ms = 0;       // median, with what lies between the calls
  std::string device;       // Ops::name
  // A processor's peaks, the larger of before and behind the steps, or a GPU's of the table.
  MachineModel machine;
};

// What a step's spans and the work of its calls add up to; ms is the step's own.
std::vector<OpRow> op_rows(std::span<const TimeSpan> spans, std::span<const LoggedWork> log);
// Against these peaks.
void set_bounds(std::vector<OpRow>& rows, const MachineModel& machine);

// `warmup` steps on synthetic tokens, then `steps` that count. All ranks of `world` together; the
// rows are this rank's, without what it waited for others, the peaks what it has beside them.
OpsBench bench_ops(const Config& config, parallel::Comm& world, int64_t warmup, int64_t steps);

}  // namespace qstep::trainer
