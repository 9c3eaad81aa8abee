// The thread of the watchdog: what it hears and does on rank 0 (the hub) and elsewhere (a member).
#include <fmt/format.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "parallel/hang.h"
#include "parallel/last_resort.h"
#include "parallel/watchdog.h"

namespace qstep::parallel {

namespace {

using ops::ExitCode;

// Frames to rank 0, then those from rank 0.
enum : uint8_t { kBeat, kAnswer, kFarewell, kQuery, kVerdict, kOver };

// In an answer, besides the last one of every group.
constexpr size_t kToldCollectives = 4;
// A process that could not run for longer than this was stopped, or its machine was.
constexpr double kStoppedS = 2;

constexpr std::string_view kUnreadable = "its messages cannot be read";

// A verdict and who is dead.
std::string pack_verdict(const Verdict& verdict, const std::vector<bool>& dead) {
  Packer to;
  to.text(pack(verdict));
  for (const bool is_dead : dead) to.number(is_dead);
  return to.bytes();
}

}  // namespace

void Watchdog::run() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);  // they are for the main thread
  std::unique_lock lock(mutex_);
  double now_s = steady_now_s();
  while (!stop_) {
    beat(now_s);
    const std::vector<pollfd> polled = poll(lock);
    const double lost_s = steady_now_s() - now_s - options_.beat_s;
    now_s = steady_now_s();
    if (lost_s > kStoppedS) {
      clock_.pause(lost_s);
      if (hub_) hub_->pause(lost_s);
    }
    for (const SideChannel::Event& event : channel_.receive(polled)) {
      hub_ ? handle_as_hub(event, now_s) : handle_as_member(event, now_s);
    }
    hub_ ? tick_as_hub(now_s) : tick_as_member(now_s);
    adopt_proposed(now_s);

    if (stop_ || !leave_by_s_ || now_s < *leave_by_s_) continue;
    const Verdict why = own_end_ ? *own_end_ : *verdict_;
    const bool tell = reports();
    lock.unlock();
    if (tell) {
      write_stderr(
          fmt::format("error: {} (rank {} was stuck and has been ended)\n", why.text, rank_));
    }
    end_process(why.code, [&] {
      if (last_words_) last_words_(why);
    });
  }
}

// Sleeps for a heartbeat, or until something comes.
std::vector<pollfd> Watchdog::poll(std::unique_lock<std::mutex>& lock) {
  std::vector<pollfd> polled = channel_.poll_set();
  polled.push_back({.fd = wake_.fd(), .events = POLLIN, .revents = 0});
  lock.unlock();
  ::poll(polled.data(), polled.size(), static_cast<int>(std::ceil(options_.beat_s * 1e3)));
  eventfd_t n_wakes = 0;
  ::eventfd_read(wake_.fd(), &n_wakes);
  lock.lock();
  polled.pop_back();
  return polled;
}

void Watchdog::wake() { ::eventfd_write(wake_.fd(), 1); }

Standing Watchdog::standing(size_t n_collectives, double now_s) const {
  return {.phase = clock_.phase(),
          .step = clock_.step(),
          .in_phase_s = now_s - clock_.entered_s(),
          .limit_s = clock_.limit_s(),
          .collectives = log_.recent(n_collectives)};
}

// Tells rank 0 what is new here. Nothing is said twice: a rank 0 that is stopped reads nothing, and
// a connection that is full for long breaks.
void Watchdog::beat(double now_s) {
  const uint64_t version = log_.version();
  if (told_phase_s_ == clock_.entered_s() && told_version_ == version) return;
  told_phase_s_ = clock_.entered_s();
  told_version_ = version;
  if (hub_) {
    hub_->heard(0, standing(0, now_s), now_s);
  } else {
    channel_.send(0, kBeat, pack(standing(0, now_s)));
  }
}

void Watchdog::broadcast(uint8_t kind, std::string_view body) {
  for (int r = 1; r < channel_.size(); ++r) channel_.send(r, kind, body);
}

void Watchdog::send_farewell(ExitCode code, std::string_view text) {
  Packer to;
  channel_.send(0, kFarewell, to.number(static_cast<int64_t>(code)).text(text).bytes());
}

void Watchdog::handle_as_hub(const SideChannel::Event& event, double now_s) {
  const bool going_on = !over_ && !verdict_;
  try {
    if (event.closed) {
      if (going_on) propose(hub_->closed(event.rank, event.how));
    } else if (event.frame.kind == kBeat) {
      hub_->heard(event.rank, unpack_standing(event.frame.body), now_s);
    } else if (event.frame.kind == kAnswer) {
      hub_->answered(event.rank, unpack_standing(event.frame.body), now_s);
    } else if (event.frame.kind == kFarewell) {
      Unpacker from(event.frame.body);
      const auto code = static_cast<ExitCode>(from.number_below(256));
      propose(hub_->farewell(event.rank, code, from.text(), now_s));
    } else {
      throw WireError{};
    }
  } catch (const WireError&) {
    if (going_on) propose(hub_->closed(event.rank, kUnreadable));
  }
}

void Watchdog::tick_as_hub(double now_s) {
  if (over_ || verdict_) return;
  propose(hub_->tick(now_s));
  if (hub_->take_query()) {
    hub_->answered(0, standing(kToldCollectives, now_s), now_s);
    broadcast(kQuery, "");
  }
  if (!hub_->all_said_goodbye()) return;
  over_ = true;
  broadcast(kOver, "");
  changed_.notify_all();
}

void Watchdog::handle_as_member(const SideChannel::Event& event, double now_s) {
  const auto rank_0_died = [&](std::string_view how) {
    if (over_ || verdict_ || proposed_) return;  // it had said why
    dead_[0] = true;
    const std::string place =
        fmt::format("when rank {} was {}", rank_, describe(standing(0, now_s)));
    propose(died(0, channel_.peers()[0], place, how));
  };
  try {
    if (event.closed) {
      rank_0_died(event.how);
    } else if (event.frame.kind == kQuery) {
      asked_s_ = now_s;
      channel_.send(0, kAnswer, pack(standing(kToldCollectives, now_s)));
    } else if (event.frame.kind == kVerdict) {
      Unpacker from(event.frame.body);
      const Verdict verdict = unpack_verdict(from.text());
      for (size_t r = 0; r < dead_.size(); ++r) dead_[r] = from.number() != 0;
      propose(verdict);
    } else if (event.frame.kind == kOver) {
      over_ = true;
      changed_.notify_all();
    } else {
      throw WireError{};
    }
  } catch (const WireError&) {
    rank_0_died(kUnreadable);
  }
}

// Limits are the business of rank 0, unless it fails in it.
void Watchdog::tick_as_member(double now_s) {
  if (over_ || verdict_ || own_end_) return;
  const double since_s = std::max(clock_.entered_s() + clock_.limit_s(), asked_s_);
  if (now_s < since_s + 2 * options_.answer_s) return;
  dead_[0] = true;
  const Verdict verdict = silent_rank_0(channel_.peers()[0], rank_, standing(0, now_s));
  send_farewell(verdict.code, verdict.text);  // should it wake up
  propose(verdict);
}

void Watchdog::propose(std::optional<Verdict> verdict) {
  if (!verdict) return;
  if (!proposed_ || weight(verdict->cause) > weight(proposed_->cause))
    proposed_ = std::move(verdict);
}

void Watchdog::adopt_proposed(double now_s) {
  const std::optional<Verdict> proposed = std::exchange(proposed_, std::nullopt);
  if (!proposed || over_) return;
  if (verdict_ && weight(proposed->cause) <= weight(verdict_->cause)) return;
  verdict_ = proposed;
  if (!leave_by_s_) leave_by_s_ = now_s + options_.leave_s;
  if (hub_) {
    dead_ = hub_->dead();
    broadcast(kVerdict, pack_verdict(*verdict_, dead_));
    if (verdict_->code == ExitCode::kHang) write_stderr(hub_->table(now_s));
  }
  failed_ = true;
  changed_.notify_all();
}

bool Watchdog::reports() const {
  const std::vector<Peer>& peers = channel_.peers();
  for (size_t r = 0; r < static_cast<size_t>(rank_); ++r) {
    const bool elsewhere = peers[r].host != peers[static_cast<size_t>(rank_)].host;
    if (!dead_[r] && !(dead_[0] && elsewhere)) return false;
  }
  return true;
}

}  // namespace qstep::parallel
