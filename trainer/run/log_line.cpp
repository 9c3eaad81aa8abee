#include "trainer/run/log_line.h"

#include <fmt/format.h>

#include <cmath>

#include "trainer/base/bootstrap.h"
#include "trainer/base/format.h"

namespace qstep::trainer {

namespace {

std::string z_text(double z) {
  return std::isfinite(z) ? fmt::format("({:+.1f}z)", z) : std::string("(z n/a)");
}

// A NaN has no sign here.
double unsigned_nan(double x) { return std::isnan(x) ? std::fabs(x) : x; }

double gib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

}  // namespace

std::string log_line(const LogLine& l) {
  const std::string mfu = share_text(l.mfu_bf16) + (std::isfinite(l.mfu_bf16) ? "bf16" : "");
  const std::string comm = std::isfinite(l.comm_exposed_ms)
                               ? fmt::format("{:.1f} ms ({})", l.comm_exposed_ms,
                                             share_text(l.comm_exposed_ms / l.step_ms))
                               : std::string("n/a");
  return fmt::format(
      "step {:>{}}/{} | loss {:.4f} {} | gnorm {:.3f} {} | lr {:.3e} | {:.1f} ms (p50 {:.1f} p95 "
      "{:.1f}) | tok/s/rank {:.0f} | tflops {:.4g} causal | mfu {} | sol {} | comm_exp {} | data "
      "{:.1f} ms | mem {:.4g}/{:.4g} GiB | recipe {} {} | skip {} nan {} | eta {}",
      l.step, std::to_string(l.steps).size(), l.steps, unsigned_nan(l.loss), z_text(l.loss_z),
      unsigned_nan(l.grad_norm), z_text(l.grad_norm_z), l.lr, l.step_ms, l.p50_ms, l.p95_ms,
      l.tokens_per_s, l.tflops_causal, mfu, share_text(l.sol), comm, l.data_wait_ms,
      gib(l.memory_bytes), gib(l.memory_total_bytes), l.recipe, l.runs, l.skipped, l.not_finite,
      duration_text(l.left_s));
}

void LogInterval::add(const StepRow& row) {
  if (step_ms_.empty()) {
    loss_ = loss_z_ = grad_norm_ = grad_norm_z_ = comm_exposed_ms_ = data_ms_ = 0;
  }
  last_ = row;
  step_ms_.push_back(row.step_ms);
  loss_ += static_cast<double>(row.loss);
  grad_norm_ += static_cast<double>(row.grad_norm);
  loss_z_ += loss_score_.add(static_cast<double>(row.loss));
  grad_norm_z_ += norm_score_.add(static_cast<double>(row.grad_norm));
  comm_exposed_ms_ += row.comm_exposed_ms.value_or(LogLine::kUnknown);
  data_ms_ += row.phases_ms[static_cast<size_t>(Phase::kData)];
  not_finite_ += std::isfinite(row.loss) && std::isfinite(row.grad_norm) ? 0 : 1;
}

LogLine LogInterval::take(int64_t ranks) {
  const auto n = static_cast<double>(step_ms_.size());
  LogLine line{.step = last_.step,
               .loss = loss_ / n,
               .loss_z = loss_z_ / n,
               .grad_norm = grad_norm_ / n,
               .grad_norm_z = grad_norm_z_ / n,
               .lr = last_.lr,
               .p50_ms = quantile(step_ms_, 0.5),
               .p95_ms = quantile(step_ms_, 0.95),
               .comm_exposed_ms = comm_exposed_ms_ / n,
               .data_wait_ms = data_ms_ / n,
               .memory_bytes = last_.peak_rss_bytes,
               .not_finite = not_finite_};
  for (const double ms : step_ms_) line.step_ms += ms / n;
  // A step's flops over the mean time.
  const double slower = last_.step_ms / line.step_ms;
  line.tokens_per_s = last_.tokens_per_s * slower / static_cast<double>(ranks);
  line.tflops_causal = last_.tflops_causal * slower;
  line.mfu_bf16 = last_.mfu_bf16 * slower;
  line.sol = last_.sol * slower;
  step_ms_.clear();
  return line;
}

}  // namespace qstep::trainer
