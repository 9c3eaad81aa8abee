#include "parallel/watchdog.h"

#include <sys/eventfd.h>

#include <chrono>
#include <utility>

namespace qstep::parallel {

namespace {

using ops::Error;
using ops::ExitCode;

// How long a rank whose collectives failed waits to hear why. Rank 0 itself takes one second.
constexpr double kCauseS = 2;

}  // namespace

std::unique_ptr<Watchdog> Watchdog::start(Comm& comm, const WatchdogOptions& options,
                                          LastWords last_words) {
  SideChannel channel(
      comm.rank(), comm.size(), [&](std::string_view text) { return all_gather_text(comm, text); },
      options.connect_s);
  return std::make_unique<Watchdog>(std::move(channel), options, std::move(last_words));
}

Watchdog::Watchdog(SideChannel channel, const WatchdogOptions& options, LastWords last_words)
    : options_(options),
      last_words_(std::move(last_words)),
      rank_(channel.rank()),
      channel_(std::move(channel)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      clock_(options.limits, steady_now_s()),
      dead_(channel_.peers().size()) {
  ops::check(static_cast<bool>(wake_), "watchdog: no event descriptor");
  const double now_s = steady_now_s();
  if (rank_ == 0) hub_.emplace(channel_.peers(), standing(0, now_s), options.answer_s, now_s);
  thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    wake();
  }
  thread_.join();
}

void Watchdog::enter_phase(Phase phase, int64_t step) {
  const std::lock_guard lock(mutex_);
  const double now_s = steady_now_s();
  clock_.enter(phase, step, now_s);
  beat(now_s);  // from here: a rank that is killed in the next moment has told where it was
}

void Watchdog::farewell(ExitCode code, std::string_view text) {
  std::unique_lock lock(mutex_);
  const bool is_symptom = code == ExitCode::kPeerDied || code == ExitCode::kHang;
  if (own_end_ || over_ || (is_symptom && verdict_)) return;
  const double now_s = steady_now_s();
  if (hub_) {
    propose(hub_->farewell(rank_, code, text, now_s));
    adopt_proposed(now_s);
  } else {
    send_farewell(code, text);
  }
  if (is_symptom && changed_.wait_for(lock, std::chrono::duration<double>(kCauseS),
                                      [&] { return verdict_.has_value(); })) {
    return;
  }
  own_end_ = {.code = code, .cause = code, .rank = rank_, .text = std::string(text)};
  if (!leave_by_s_) leave_by_s_ = steady_now_s() + options_.leave_s;
}

void Watchdog::goodbye() {
  {
    std::unique_lock lock(mutex_);
    const double now_s = steady_now_s();
    clock_.enter(Phase::kEnd, clock_.step(), now_s);
    beat(now_s);
    wake();
    changed_.wait(lock, [&] { return over_ || verdict_; });
    if (over_) return;
  }
  check();
}

void Watchdog::check() const {
  const std::optional<Verdict> why = verdict();
  if (why) throw Error(why->code, why->text);
}

std::optional<Verdict> Watchdog::verdict() const {
  const std::lock_guard lock(mutex_);
  return verdict_;
}

std::optional<Failure> Watchdog::failure() {
  if (!failed_) return std::nullopt;
  const std::lock_guard lock(mutex_);
  return Failure{.code = verdict_->code, .text = verdict_->text};
}

bool Watchdog::i_report() const {
  const std::lock_guard lock(mutex_);
  return reports();
}

}  // namespace qstep::parallel
