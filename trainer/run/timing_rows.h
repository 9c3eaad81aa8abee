// metrics.rank00000.jsonl: where the time of one rank goes, by layer, GEMM and collective, summed
// over a few steps. trainer/timing/README.md documents every field.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "trainer/backend/rank_groups.h"
#include "trainer/base/json_lines.h"
#include "trainer/machine/machines.h"
#include "trainer/step/trainer.h"
#include "trainer/timing/collective_times.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

inline constexpr int kTimingSchema = 1;

// What the multipliers of a call are for. Decoded operands are BF16.
ProductFormat runs_as(const GemmCall& gemm);

// "<folder>/metrics.rank00000.jsonl"
std::string timing_rows_path(const std::string& folder, int rank);

// Drops what these files of ranks first_rank, first_rank + 1, ... say of steps behind last_step: a
// run that goes on with fewer ranks, or without timing, writes them no more.
void drop_timing_rows(const std::string& folder, int first_rank, int64_t last_step);

// The first row of a start.
struct RankRunRow {
  int64_t first_step = 1;
  int rank = 0;
  std::string host;
  int64_t pid = 0;
  int tensor_rank = 0, data_rank = 0;
  int64_t threads = 0;
  double note_ns = 0;  // what noting a call takes (timeline.h)
};

class TimingRows {
 public:
  // Rows behind last_step are dropped. Collectives of other groups are not counted.
  TimingRows(const std::string& path, int64_t last_step, int rank, NamedGroups groups,
             bool bf16_emulated);

  void run(const RankRunRow& row, std::span<const MemoryRow> memory);
  // Adds up the last step of `timeline`, and what of the collectives lies in it.
  void add(int64_t step, const Timeline& timeline, std::span<const CollectiveTime> collectives);
  // Appends a row of each kind and of everything that was added since the last time; none when
  // nothing was.
  void write();
  // Every row so far is durable when this returns.
  void sync() const { lines_.sync(); }

 private:
  // Of the calls of one kind.
  struct Calls {
    Category category;
    Phase phase;
    std::string_view label;
    int64_t layer;
    GemmCall gemm;
    int64_t n = 0, ns = 0;

    bool takes(const TimeSpan& span) const {
      return category == span.category && phase == span.phase && layer == span.layer &&
             label == span.label && gemm == span.gemm;
    }
  };
  struct Collectives {
    int64_t n = 0, bytes = 0, ns = 0;
    double exposed_ns = 0;
  };

  size_t find(const TimeSpan& span);
  void open(std::string_view type);
  void write_phases();
  void write_gemms();
  void write_collectives();

  int rank_;
  NamedGroups groups_;
  bool bf16_emulated_;
  int64_t step_ = 0, n_steps_ = 0;
  std::vector<Calls> calls_;
  // Of the n-th span of the step before: steps repeat each other.
  std::vector<size_t> last_found_;
  std::map<std::pair<std::string, std::string_view>, Collectives> collectives_;
  JsonLines lines_;
};

}  // namespace qstep::trainer
