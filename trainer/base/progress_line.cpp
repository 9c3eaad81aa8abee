#include "trainer/base/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "trainer/base/signals.h"

namespace qstep::trainer {

namespace {

constexpr std::chrono::milliseconds kRedraw{100}, kLogLine{5000};

}  // namespace

ProgressLine::ProgressLine() : terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressLine::begin(std::string what) {
  end();
  what_ = std::move(what);
  start_ = last_ = Clock::now();
}

void ProgressLine::update(uint64_t done, uint64_t total) {
  if (stop_signal()) throw Interrupted{};
  const auto now = Clock::now();
  if (now - last_ < (terminal_ ? kRedraw : kLogLine)) return;
  last_ = now;
  print(done, total, std::chrono::duration<double>(now - start_).count());
}

void ProgressLine::end() {
  if (terminal_ && drawn_) fmt::print(stderr, "\r\033[K");
  drawn_ = false;
}

void ProgressLine::print(uint64_t done, uint64_t total, double elapsed_s) {
  const double part = total > 0 ? std::min(1.0, double(done) / double(total)) : 0;
  const double rate = double(done) / elapsed_s;  // bytes per second
  const double left_s = rate > 0 ? double(total - std::min(done, total)) / rate : 0;
  const std::string text =
      fmt::format("{} {:5.1f} %  {:.1f} of {:.1f} MB  {:.1f} MB/s  {:.0f} s left", what_,
                  100 * part, double(done) / 1e6, double(total) / 1e6, rate / 1e6, left_s);
  if (terminal_) {
    constexpr int kBarCells = 24;
    const int full = static_cast<int>(part * kBarCells);
    fmt::print(stderr, "\r\033[K[{}{}] {}", std::string(full, '#'),
               std::string(kBarCells - full, '.'), text);
    drawn_ = true;
  } else {
    fmt::print(stderr, "{}\n", text);
  }
}

}  // namespace qstep::trainer
