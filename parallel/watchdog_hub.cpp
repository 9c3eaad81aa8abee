#include "parallel/watchdog_hub.h"

#include <algorithm>
#include <utility>

namespace qstep::parallel {

namespace {

using ops::ExitCode;

constexpr double kBetterCauseS = 1;

// As it is some time after it was told.
Standing later(Standing standing, double seconds) {
  standing.in_phase_s += seconds;
  for (LoggedCollective& c : standing.collectives) c.age_s += seconds;
  return standing;
}

}  // namespace

WatchdogHub::WatchdogHub(const std::vector<Peer>& peers, const Standing& first, double answer_s,
                         double now_s)
    : answer_s_(answer_s), dead_(peers.size()) {
  for (const Peer& peer : peers) {
    ranks_.push_back({.peer = peer, .standing = first, .heard_s = now_s});
  }
}

void WatchdogHub::heard(int rank, Standing standing, double now_s) {
  at(rank).standing = std::move(standing);
  at(rank).heard_s = now_s;
}

void WatchdogHub::answered(int rank, Standing standing, double now_s) {
  heard(rank, std::move(standing), now_s);
  at(rank).answered = true;
}

std::optional<Verdict> WatchdogHub::closed(int rank, std::string_view how) {
  if (at(rank).ended) return std::nullopt;
  dead_[static_cast<size_t>(rank)] = true;
  return died(rank, at(rank).peer, describe(at(rank).standing), how);
}

std::optional<Verdict> WatchdogHub::farewell(int rank, ExitCode code, std::string_view error,
                                             double now_s) {
  at(rank).ended = true;
  const Verdict verdict = ended_by_error(rank, code, error);
  if (code != ExitCode::kPeerDied && code != ExitCode::kHang) return verdict;
  if (!symptom_) symptom_s_ = now_s;
  if (!symptom_ || weight(code) > weight(symptom_->cause)) symptom_ = verdict;
  return std::nullopt;
}

bool WatchdogHub::somebody_over_limit(double now_s) const {
  return std::any_of(ranks_.begin(), ranks_.end(), [&](const Rank& rank) {
    return rank.standing.in_phase_s + now_s - rank.heard_s > rank.standing.limit_s;
  });
}

std::optional<Verdict> WatchdogHub::tick(double now_s) {
  if (symptom_ && now_s > symptom_s_ + kBetterCauseS) {
    return std::exchange(symptom_, std::nullopt);
  }
  if (!asked_s_) {
    if (all_said_goodbye() || now_s < ask_again_s_ || !somebody_over_limit(now_s)) {
      return std::nullopt;
    }
    for (Rank& rank : ranks_) rank.answered = false;
    asked_s_ = now_s;
    query_ = true;
    return std::nullopt;
  }
  const bool all_answered =
      std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.answered; });
  if (!all_answered && now_s < *asked_s_ + answer_s_) return std::nullopt;
  asked_s_.reset();
  // Who was late may have gone on in the meantime.
  if (!somebody_over_limit(now_s)) return std::nullopt;
  const Verdict verdict = judge_hang(reports(now_s));
  // A suspect that answers has its own limit, too: its clock began later than that of those who
  // wait for it, or stood still together with its process. They are asked again and again
  // meanwhile, as they take a rank 0 that asks nobody for stopped.
  if (verdict.rank >= 0 && at(verdict.rank).answered) {
    const Rank& suspect = at(verdict.rank);
    const double left_s =
        suspect.standing.limit_s - suspect.standing.in_phase_s - (now_s - suspect.heard_s);
    if (left_s > 0) {
      ask_again_s_ = now_s + std::min(left_s, answer_s_);
      return std::nullopt;
    }
  }
  return verdict;
}

bool WatchdogHub::take_query() { return std::exchange(query_, false); }

void WatchdogHub::pause(double seconds) {
  for (Rank& rank : ranks_) rank.heard_s += seconds;
  if (asked_s_) *asked_s_ += seconds;
  ask_again_s_ += seconds;
  symptom_s_ += seconds;
}

bool WatchdogHub::all_said_goodbye() const {
  return std::all_of(ranks_.begin(), ranks_.end(),
                     [](const Rank& rank) { return rank.standing.phase == Phase::kEnd; });
}

std::vector<RankReport> WatchdogHub::reports(double now_s) const {
  std::vector<RankReport> reports;
  for (const Rank& rank : ranks_) {
    reports.push_back({.peer = rank.peer,
                       .answered = rank.answered,
                       .standing = later(rank.standing, now_s - rank.heard_s)});
  }
  return reports;
}

std::string WatchdogHub::table(double now_s) const { return collective_table(reports(now_s)); }

}  // namespace qstep::parallel
