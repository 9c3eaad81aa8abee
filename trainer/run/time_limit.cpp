#include "trainer/run/time_limit.h"

#include <charconv>
#include <cstdint>
#include <string_view>

namespace qstep::trainer {

TimeLimit::TimeLimit(double max_minutes, const char* job_end_time) {
  if (max_minutes > 0) left_at_start_s_ = max_minutes * 60;
  if (job_end_time == nullptr) return;
  const std::string_view text = job_end_time;
  int64_t end = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), end);
  if (error != std::errc() || rest != text.data() + text.size() || end <= 0) return;
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  left_at_start_s_ = std::min(left_at_start_s_, static_cast<double>(end) - now.count());
}

double TimeLimit::left_s() const {
  return left_at_start_s_ - std::chrono::duration<double>(Clock::now() - start_).count();
}

}  // namespace qstep::trainer
