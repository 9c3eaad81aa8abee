// Where a step's time goes on the thread that runs it: coarse phases, one of which is open at any
// moment, and, where asked for, every call and every wait as a span of its own.
//
// With the clock of a device that works beside the host all these times are the device's. A call
// takes from when the device was done with what was ahead of it, or from when the host came to it
// where that was later, until the device is behind it; a wait is what of it the device stood still
// for. Between them the device had nothing to run. Nothing in the step waits for these times.
//
// Notes are taken in memory that is there from the second step on; what they mean is worked out
// behind the step (breakdown.h).
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "ops/profiler_range.h"
#include "precision/quant_spec.h"
#include "trainer/base/intervals.h"
#include "trainer/config/config.h"
#include "trainer/timing/device_notes.h"

namespace qstep::trainer {

// kComm: the step stands still for other ranks; what they exchange beside the computation is not in
// it.
enum class Phase : uint8_t { kData, kForward, kBackward, kOptimizer, kComm, kOther };

inline constexpr std::array<std::string_view, 6> kPhaseNames = {"data",      "forward", "backward",
                                                                "optimizer", "comm",    "other"};

using PhaseTimes = std::array<double, kPhaseNames.size()>;  // ms, in the order of Phase

// What an operand of a GEMM was rounded to.
enum class GemmFormat : uint8_t {
  kFp32,
  kBf16,
  kNvfp4,
  kMxfp4,
  kMxfp8E4m3,
  kMxfp8E5m2,
  kFp8E4m3,
  kFp8E5m2
};
constexpr GemmFormat gemm_format(precision::QuantFormat format) {
  return static_cast<GemmFormat>(static_cast<int>(GemmFormat::kBf16) + static_cast<int>(format));
}
constexpr std::string_view format_name(GemmFormat format) {
  const auto i = static_cast<size_t>(format);
  return i == 0 ? "fp32" : precision::kQuantFormatNames[i - 1].first;
}

// What a step's time is spent on; a closed list, of which each instant has one. The three of
// communication are what the step stands still for.
enum class Category : uint8_t {
  kDataWait,  // the next batch is not there yet
  kEmbed,     // embedding, forward and backward
  kNormElem,  // norms, residuals, activations, RoPE, gradients of biases
  kQuant,     // what a BF16 run would not do: amax, scales, Hadamard, casts, transposes
  kGemmFp32,  // GEMMs of the blocks, in the order of GemmFormat
  kGemmBf16,
  kGemmNvfp4,
  kGemmMxfp4,
  kGemmMxfp8E4m3,
  kGemmMxfp8E5m2,
  kGemmFp8E4m3,
  kGemmFp8E5m2,
  kAttn,         // attention, forward and backward
  kHeadLoss,     // GEMMs of the head, cross-entropy
  kGradReduce,   // waits for sums over the data-parallel ranks
  kParamGather,  // waits for updated weights
  kTpComm,       // waits inside a tensor-parallel group
  kClip,         // gradient norm, clipping
  kOptim,        // update; sums of gradients over micro-batches
  kHostGap,      // between calls: nothing runs
  kOther         // calls that belong to none of these
};
inline constexpr std::array<std::string_view, 21> kCategoryNames = {
    "data_wait",     "embed",         "norm_elem",  "quant",           "gemm_fp32",
    "gemm_bf16",     "gemm_nvfp4",    "gemm_mxfp4", "gemm_mxfp8-e4m3", "gemm_mxfp8-e5m2",
    "gemm_fp8-e4m3", "gemm_fp8-e5m2", "attn",       "head_loss",       "grad_reduce",
    "param_gather",  "tp_comm",       "clip",       "optim",           "host_gap",
    "other"};
constexpr std::string_view category_name(Category c) {
  return kCategoryNames[static_cast<size_t>(c)];
}
constexpr bool is_wait(Category c) {
  return c == Category::kDataWait || c == Category::kGradReduce || c == Category::kParamGather ||
         c == Category::kTpComm;
}

// d[m,n] = a[m,k] b[n,k]^T
struct GemmCall {
  int64_t m = 0, n = 0, k = 0;
  GemmFormat a = GemmFormat::kFp32, b = GemmFormat::kFp32;
  bool native = false;  // multiplied by their codes, not by what these decode to

  // Multiply-add = 2.
  double flops() const { return gemm_flops(m, n, k); }
  friend bool operator==(const GemmCall&, const GemmCall&) = default;
};

// One call or one wait. Texts are literals.
struct TimeSpan {
  TimeRange when;
  // Of `when`, in waits of the call, which are spans too: a quantizer's for the largest amax of a
  // tensor-parallel group. Known behind the step.
  int64_t waited_ns = 0;
  Category category = Category::kOther;
  Phase phase = Phase::kOther;  // in which it happened; never kComm
  std::string_view call;        // "gemm"; "wait"
  std::string_view label;       // as Ops::label had it: "qkv fprop"
  int64_t layer = -1;
  GemmCall gemm;  // of a gemm

  int64_t own_ns() const { return when.length() - waited_ns; }
};

// A phase, the waits for other ranks in it included.
struct PhaseSpan {
  Phase phase = Phase::kOther;
  TimeRange when;
};

class TimelineTape;

// Calls that the device got as a recording, which made their marks: the first of these, and when.
struct HandedOver {
  int64_t first_mark = -1;  // -1: calls are handed over as they are noted
  int64_t at_ns = 0;
};

class Timeline {
 public:
  // Null: calls are done when they return.
  explicit Timeline(TimingLevel level = TimingLevel::kOff, ops::DeviceClock* clock = nullptr)
      : level_(level) {
    if (clock != nullptr) device_.emplace(*clock);
  }

  // Begins a step: forgets what was noted; the open phase is kOther. Profilers show its number.
  void start(int64_t step = 0);
  // Closes the open phase and opens this one; nothing when it is open already. Returns the one that
  // was open.
  Phase enter(Phase phase);
  // Ends the step: closes the open phase and returns all times; their sum is the time since start.
  const PhaseTimes& stop();

  // f() does nothing but wait: for a batch (kData) or for other ranks (kComm). The open phase goes
  // on behind it. Between steps nothing is noted.
  template <class F>
  void wait(Category category, F&& f) {
    if (!running_) return f();
    ops::check(tape_ == nullptr, "timeline: a wait among calls that are recorded");
    const Stamp begin = end_stamp();  // of what is ahead of it, within a call too
    const Phase before = turn_to(category == Category::kDataWait ? Phase::kData : Phase::kComm);
    stand_still(f);
    note_wait(category, begin, before);
    turn_to(before);
  }
  // f() waits for the device: the host has no work in it.
  template <class F>
  void stand_still(F&& f) {
    if (!device_) return f();
    const int64_t begin = now_ns();
    f();
    stood_still_ns_ += now_ns() - begin;
  }

  // What follows is for calls (TimedOps).

  // Whether calls are noted now: at level ops, within a step.
  bool notes_calls() const { return running_ && level_ == TimingLevel::kOps; }
  void label(int64_t layer, std::string_view name) {
    layer_ = layer;
    label_ = name;
  }
  std::string_view label() const { return label_; }
  Phase phase() const { return open_; }
  // ns; with a device the number of a note (device_notes.h).
  using Stamp = int64_t;
  Stamp begin_call();
  void end_call(Stamp begin, Category category, std::string_view call, const GemmCall& gemm = {});

  // What follows is for recorded calls (recordings.h).

  // What is noted from now on goes to the tape too; null: no longer.
  void record(TimelineTape* tape);
  // The calls that are noted next are these.
  void handed_over_before(const HandedOver& calls) {
    before_ = calls;
    if (device_) device_->use_marks(calls.first_mark);
  }

  // What follows is of the last step, until the next one starts.

  TimingLevel level() const { return level_; }
  TimeRange step() const { return step_; }
  // In the order in which they ended; none at level off, waits alone at level phases.
  std::span<const TimeSpan> spans() const { return spans_; }
  // One behind the other, without gaps, over the whole step; at level ops.
  std::span<const PhaseSpan> phases() const { return phases_; }
  // What the host itself did in the step, ms: all of it but waiting, for the device too. Not there
  // where the host is what computes.
  std::optional<double> host_ms() const;

  // Of the steady clock, as everything here.
  static int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }

 private:
  int64_t handed_over_ns() const { return before_.first_mark < 0 ? now_ns() : before_.at_ns; }
  Stamp begin_stamp() { return device_ ? device_->note(handed_over_ns()) : now_ns(); }
  Stamp end_stamp() { return device_ ? device_->mark() : now_ns(); }
  Phase turn_to(Phase phase);
  void note_phase();
  void note_wait(Category category, Stamp begin, Phase phase);
  void close();
  void resolve();

  TimingLevel level_;
  std::optional<DeviceNotes> device_;
  bool running_ = false;
  Phase open_ = Phase::kOther;
  Stamp since_ = 0;  // of the open phase
  int64_t stood_still_ns_ = 0;
  TimelineTape* tape_ = nullptr;
  HandedOver before_;
  TimeRange step_;
  int64_t layer_ = -1;
  std::string_view label_;
  PhaseTimes ms_{};
  std::vector<TimeSpan> spans_;
  std::vector<PhaseSpan> phases_;  // `end` of the last one is not known before stop()
  std::vector<PhaseSpan> turns_;   // the same with waits between, at every level
  ops::ProfilerRange step_range_{"qstep steps"}, phase_range_{"qstep phases"};
};

double total_ms(const PhaseTimes& times);

// What noting one call takes on this machine now, ns: two looks at the clock and a note in memory
// that is there; with a device a mark, and reading it. Takes a few milliseconds to find out;
// nothing else runs.
double measure_note_ns(ops::DeviceClock* clock = nullptr);

}  // namespace qstep::trainer
