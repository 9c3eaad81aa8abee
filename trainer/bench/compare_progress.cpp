#include "trainer/bench/compare_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "trainer/base/format.h"

namespace qstep::trainer {

namespace {

constexpr std::chrono::milliseconds kRedraw{100}, kLogLine{10000};

}  // namespace

CompareProgress::CompareProgress(size_t n_recipes)
    : terminal_(isatty(STDERR_FILENO) == 1), work_(n_recipes) {}

CompareProgress::~CompareProgress() { wipe(); }

void CompareProgress::enter(std::string what) { what_ = std::move(what); }

void CompareProgress::advance(size_t recipe, int64_t steps, double seconds) {
  Work& work = work_[recipe];
  work.left -= steps;
  work.done += steps;
  work.seconds += seconds;
  const auto now = Clock::now();
  if (now - last_ < (terminal_ ? kRedraw : kLogLine)) return;
  last_ = now;
  draw();
}

void CompareProgress::say(const std::string& text) {
  wipe();
  fmt::print(stderr, "{}\n", text);
}

double CompareProgress::seconds_left() const {
  double slowest = 0;
  for (const Work& w : work_) {
    if (w.done > 0) slowest = std::max(slowest, w.seconds / static_cast<double>(w.done));
  }
  double left = 0;
  for (const Work& w : work_) {
    const double each = w.done > 0 ? w.seconds / static_cast<double>(w.done) : slowest;
    left += each * static_cast<double>(std::max<int64_t>(0, w.left));
  }
  return left;
}

double CompareProgress::share_done() const {
  int64_t done = 0, all = 0;
  for (const Work& w : work_) {
    done += w.done;
    all += w.done + std::max<int64_t>(0, w.left);
  }
  return all > 0 ? static_cast<double>(done) / static_cast<double>(all) : 0;
}

void CompareProgress::draw() {
  const double share = share_done();
  const std::string text =
      fmt::format("{:5.1f} %  {}  {} left", 100 * share, what_, duration_text(seconds_left()));
  if (!terminal_) {
    fmt::print(stderr, "{}\n", text);
    return;
  }
  constexpr int kBarCells = 24;
  const int full = static_cast<int>(share * kBarCells);
  fmt::print(stderr, "\r\033[K[{}{}] {}", std::string(full, '#'),
             std::string(kBarCells - full, '.'), text);
  drawn_ = true;
}

void CompareProgress::wipe() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
  drawn_ = false;
}

}  // namespace qstep::trainer
