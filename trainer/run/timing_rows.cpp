#include "trainer/run/timing_rows.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "trainer/machine/machines.h"
#include "trainer/timing/breakdown.h"

namespace qstep::trainer {

namespace {

std::string_view pass_name(Phase phase) {
  if (phase == Phase::kForward) return "forward";
  return phase == Phase::kBackward ? "backward" : "none";
}

// "qkv" and "fprop" of "qkv fprop".
std::pair<std::string_view, std::string_view> split_label(std::string_view label) {
  const size_t space = label.find(' ');
  return {label.substr(0, space), label.substr(space + 1)};
}

std::string kept(const std::string& path, int64_t last_step) {
  keep_rows(path, last_step, [](const auto&, int64_t) {});
  return path;
}

double ms(double ns) { return ns * 1e-6; }

}  // namespace

ProductFormat runs_as(const GemmCall& gemm) {
  if (!gemm.native) {
    const bool fp32 = gemm.a == GemmFormat::kFp32 && gemm.b == GemmFormat::kFp32;
    return fp32 ? ProductFormat::kFp32 : ProductFormat::kBf16;
  }
  switch (gemm.a) {
    case GemmFormat::kNvfp4:
      return ProductFormat::kNvfp4;
    case GemmFormat::kMxfp4:
      return ProductFormat::kMxfp4;
    case GemmFormat::kMxfp8E4m3:
    case GemmFormat::kMxfp8E5m2:
      return ProductFormat::kMxfp8;
    default:
      return ProductFormat::kFp8;
  }
}

std::string timing_rows_path(const std::string& folder, int rank) {
  return fmt::format("{}/metrics.rank{:05}.jsonl", folder, rank);
}

void drop_timing_rows(const std::string& folder, int first_rank, int64_t last_step) {
  for (int rank = first_rank;; ++rank) {
    const std::string path = timing_rows_path(folder, rank);
    std::error_code none;
    if (!std::filesystem::exists(path, none)) return;
    kept(path, last_step);
  }
}

TimingRows::TimingRows(const std::string& path, int64_t last_step, int rank, NamedGroups groups,
                       bool bf16_emulated)
    : rank_(rank),
      groups_(std::move(groups)),
      bf16_emulated_(bf16_emulated),
      lines_(kept(path, last_step)) {}

void TimingRows::run(const RankRunRow& row, std::span<const MemoryRow> memory) {
  lines_.open("rank_run", row.first_step);
  lines_.put("schema", kTimingSchema);
  lines_.put("rank", row.rank);
  lines_.put("host", row.host);
  lines_.put("pid", row.pid);
  lines_.put("tensor_rank", row.tensor_rank);
  lines_.put("data_rank", row.data_rank);
  lines_.put("threads", row.threads);
  lines_.put("note_ns", row.note_ns);
  lines_.append();
  for (const MemoryRow& owned : memory) {
    lines_.open("memory", row.first_step);
    lines_.put("rank", row.rank);
    lines_.put("owner", owned.owner);
    lines_.put("bytes", owned.bytes);
    lines_.append();
  }
}

size_t TimingRows::find(const TimeSpan& span) {
  size_t i = 0;
  while (i < calls_.size() && !calls_[i].takes(span)) ++i;
  if (i == calls_.size()) {
    calls_.push_back({.category = span.category,
                      .phase = span.phase,
                      .label = span.label,
                      .layer = span.layer,
                      .gemm = span.gemm});
  }
  return i;
}

void TimingRows::add(int64_t step, const Timeline& timeline,
                     std::span<const CollectiveTime> collectives) {
  step_ = step;
  ++n_steps_;
  const std::span<const TimeSpan> spans = timeline.spans();
  last_found_.resize(std::max(last_found_.size(), spans.size()));
  for (size_t i = 0; i < spans.size(); ++i) {
    size_t& at = last_found_[i];
    if (at >= calls_.size() || !calls_[at].takes(spans[i])) at = find(spans[i]);
    ++calls_[at].n;
    calls_[at].ns += spans[i].own_ns();
  }

  const std::vector<TimeRange> times = with_waking(collectives, spans);
  const std::vector<double> bare = exposed(times, going(spans, timeline.step()));
  for (size_t i = 0; i < collectives.size(); ++i) {
    const CollectiveTime& c = collectives[i];
    const auto group = groups_.find(c.group);
    if (group == groups_.end()) continue;
    Collectives& sum = collectives_[{group->second.name, c.operation}];
    sum.ns += times[i].length();
    sum.exposed_ns += bare[i];
    sum.n += c.ended ? 1 : 0;
    sum.bytes += c.ended ? c.bytes : 0;
  }
}

void TimingRows::open(std::string_view type) {
  lines_.open(type, step_);
  lines_.put("steps", n_steps_);
  lines_.put("rank", rank_);
}

// By category, layer and pass, in that order.
void TimingRows::write_phases() {
  std::map<std::tuple<Category, int64_t, std::string_view>, std::pair<int64_t, int64_t>> sums;
  for (const Calls& calls : calls_) {
    auto& [n, ns] = sums[{calls.category, calls.layer, pass_name(calls.phase)}];
    n += calls.n;
    ns += calls.ns;
  }
  for (const auto& [key, sum] : sums) {
    const auto& [category, layer, pass] = key;
    const auto& [n, ns] = sum;
    if (n == 0) continue;
    open("phase");
    lines_.put("phase", category_name(category));
    lines_.put("layer", layer);
    lines_.put("pass", pass);
    lines_.put("ms", ms(static_cast<double>(ns)));
    lines_.put("calls", n);
    lines_.append();
  }
}

void TimingRows::write_gemms() {
  for (const Calls& calls : calls_) {
    if (calls.n == 0 || calls.gemm.m == 0) continue;
    const GemmCall& gemm = calls.gemm;
    const auto [op, pass] = split_label(calls.label);
    const auto emulates = [&](GemmFormat format) {
      if (format == GemmFormat::kFp32) return false;
      return format == GemmFormat::kBf16 ? bf16_emulated_ : !gemm.native;
    };
    const double flops = gemm.flops() * static_cast<double>(calls.n);
    open("gemm");
    lines_.put("layer", calls.layer);
    lines_.put("op", op);
    lines_.put("pass", pass);
    lines_.put("m", gemm.m);
    lines_.put("n", gemm.n);
    lines_.put("k", gemm.k);
    lines_.put("format_a", format_name(gemm.a));
    lines_.put("format_b", format_name(gemm.b));
    lines_.put("emulated", emulates(gemm.a) || emulates(gemm.b));
    lines_.put("runs_as", name(runs_as(gemm)));
    lines_.put("calls", calls.n);
    lines_.put("ms", ms(static_cast<double>(calls.ns)));
    lines_.put("tflops", flops / static_cast<double>(calls.ns) * 1e-3);
    lines_.append();
  }
}

void TimingRows::write_collectives() {
  for (const auto& [key, sum] : collectives_) {
    open("comm");
    lines_.put("group", key.first);
    lines_.put("op", key.second);
    lines_.put("calls", sum.n);
    lines_.put("bytes", sum.bytes);
    lines_.put("total_ms", ms(static_cast<double>(sum.ns)));
    lines_.put("exposed_ms", ms(sum.exposed_ns));
    lines_.append();
  }
}

void TimingRows::write() {
  if (n_steps_ == 0) return;
  write_phases();
  write_gemms();
  write_collectives();
  // The kinds of calls stay, as they come again.
  for (Calls& calls : calls_) calls.n = calls.ns = 0;
  collectives_.clear();
  n_steps_ = 0;
}

}  // namespace qstep::trainer
