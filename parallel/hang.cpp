#include "parallel/hang.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "parallel/comm.h"

namespace qstep::parallel {

namespace {

using ops::ExitCode;
using Reports = std::span<const RankReport>;

Verdict hang(int rank, std::string text) {
  return {.code = ExitCode::kHang, .cause = ExitCode::kHang, .rank = rank, .text = std::move(text)};
}

// A collective, and a rank that waits in it.
struct Waiter {
  int rank = 0;
  const LoggedCollective* in = nullptr;
};

std::vector<Waiter> waiters_of(Reports reports) {
  std::vector<Waiter> waiters;
  for (int r = 0; r < std::ssize(reports); ++r) {
    const RankReport& report = reports[static_cast<size_t>(r)];
    if (!report.answered) continue;
    for (const LoggedCollective& c : report.standing.collectives) {
      if (c.inside) waiters.push_back({r, &c});
    }
  }
  return waiters;
}

bool waits(const RankReport& report) {
  return std::any_of(report.standing.collectives.begin(), report.standing.collectives.end(),
                     [](const LoggedCollective& c) { return c.inside; });
}

bool said_goodbye(const RankReport& report) { return report.standing.phase == Phase::kEnd; }

// "rank 1", "ranks 0 and 2", "ranks 0, 2 and 3"
std::string list(std::vector<int> ranks) {
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  if (ranks.size() == 1) return fmt::format("rank {}", ranks[0]);
  const int last = ranks.back();
  ranks.pop_back();
  return fmt::format("ranks {} and {}", fmt::join(ranks, ", "), last);
}

// "ranks 0 and 1 wait in all_reduce 3 of world (4 bytes, fp32)": those in the same one as `in`.
std::string who_waits(std::span<const Waiter> waiters, const LoggedCollective& in) {
  std::vector<int> ranks;
  for (const Waiter& w : waiters) {
    if (w.in->group == in.group && w.in->sequence == in.sequence &&
        w.in->operation == in.operation) {
      ranks.push_back(w.rank);
    }
  }
  return fmt::format("{} {} in {}", list(ranks), ranks.size() == 1 ? "waits" : "wait",
                     describe(in));
}

// The last collective of the group that the rank entered; none of ranks outside of the group. Whole
// worlds alone are known to have all ranks as members, also those that entered nothing yet.
std::optional<uint64_t> last_entered(const RankReport& report, const std::string& group) {
  std::optional<uint64_t> last;
  if (group == kHostsGroup || group == kGpusGroup) last = 0;
  for (const LoggedCollective& c : report.standing.collectives) {
    if (c.group == group && c.peer < 0) last = std::max(last.value_or(0), c.sequence);
  }
  return last;
}

std::optional<Verdict> unanswered(Reports reports, std::span<const Waiter> waiters) {
  std::vector<int> silent;
  for (int r = 0; r < std::ssize(reports); ++r) {
    if (!reports[static_cast<size_t>(r)].answered) silent.push_back(r);
  }
  if (silent.empty()) return std::nullopt;
  const RankReport& first = reports[static_cast<size_t>(silent[0])];
  std::string text = fmt::format(
      "{} hangs: it does not answer, so the process is stopped or its host is gone; last heard of "
      "{}",
      describe(silent[0], first.peer), describe(first.standing));
  if (silent.size() > 1) text += fmt::format("; {} do not answer", list(silent));
  if (!waiters.empty()) text += "; " + who_waits(waiters, *waiters[0].in);
  return hang(silent[0], std::move(text));
}

std::optional<Verdict> mismatched(std::span<const Waiter> waiters) {
  for (const Waiter& a : waiters) {
    for (const Waiter& b : waiters) {
      if (a.in->peer >= 0 || b.in->peer >= 0 || a.in->group != b.in->group ||
          a.in->sequence != b.in->sequence) {
        continue;
      }
      if (a.in->operation == b.in->operation && a.in->bytes == b.in->bytes &&
          a.in->dtype == b.in->dtype) {
        continue;
      }
      return hang(-1, fmt::format("ranks hang in different collectives under one number: rank {} "
                                  "in {}, rank {} in {}",
                                  a.rank, describe(*a.in), b.rank, describe(*b.in)));
    }
  }
  return std::nullopt;
}

std::string for_how_long(const Standing& standing) {
  return fmt::format("{}, for {:.1f} s (limit {:.1f} s)", describe(standing), standing.in_phase_s,
                     standing.limit_s);
}

// Rank `r` said goodbye; named with it is the lowest rank that did not.
Verdict early(Reports reports, int r) {
  int other = 0;
  while (other + 1 < std::ssize(reports) && said_goodbye(reports[static_cast<size_t>(other)])) {
    ++other;
  }
  const RankReport& report = reports[static_cast<size_t>(r)];
  return ended_early(r, report.peer, describe(report.standing), other,
                     describe(reports[static_cast<size_t>(other)].standing));
}

std::optional<Verdict> lagging(Reports reports, std::span<const Waiter> waiters) {
  struct Laggard {
    bool waits_itself;
    uint64_t last;
    int rank;
    const LoggedCollective* missing;
    auto order() const { return std::tuple(waits_itself, last, rank, missing->sequence); }
  };
  std::vector<Laggard> laggards;
  for (const Waiter& waiter : waiters) {
    if (waiter.in->peer >= 0) continue;
    for (int r = 0; r < std::ssize(reports); ++r) {
      const RankReport& report = reports[static_cast<size_t>(r)];
      const std::optional<uint64_t> last = last_entered(report, waiter.in->group);
      if (last && *last < waiter.in->sequence) {
        laggards.push_back({waits(report), *last, r, waiter.in});
      }
    }
  }
  if (laggards.empty()) return std::nullopt;
  const Laggard suspect =
      *std::min_element(laggards.begin(), laggards.end(),
                        [](const Laggard& a, const Laggard& b) { return a.order() < b.order(); });
  const RankReport& report = reports[static_cast<size_t>(suspect.rank)];
  if (said_goodbye(report)) return early(reports, suspect.rank);
  const std::string last =
      suspect.last == 0 ? "none so far" : fmt::format("number {}", suspect.last);
  return hang(suspect.rank,
              fmt::format("{} hangs {}: it has not entered {}; its last one there was {}; {}",
                          describe(suspect.rank, report.peer), for_how_long(report.standing),
                          describe(*suspect.missing), last, who_waits(waiters, *suspect.missing)));
}

std::optional<Verdict> outside(Reports reports, std::span<const Waiter> waiters) {
  // Where somebody waits, it is for one of these, even if the clock of that one began a little
  // later.
  const bool any = !waiters.empty() && std::none_of(reports.begin(), reports.end(), said_goodbye);
  int suspect = -1;
  double most_s = any ? -std::numeric_limits<double>::infinity() : 0;
  for (int r = 0; r < std::ssize(reports); ++r) {
    const RankReport& report = reports[static_cast<size_t>(r)];
    const double over_s = report.standing.in_phase_s - report.standing.limit_s;
    if (over_s <= most_s || waits(report) || said_goodbye(report)) continue;
    suspect = r;
    most_s = over_s;
  }
  if (suspect < 0) return std::nullopt;
  const RankReport& report = reports[static_cast<size_t>(suspect)];
  std::string text = fmt::format("{} hangs {}, outside of collectives",
                                 describe(suspect, report.peer), for_how_long(report.standing));
  if (!waiters.empty()) text += "; " + who_waits(waiters, *waiters[0].in);
  return hang(suspect, std::move(text));
}

}  // namespace

Verdict judge_hang(Reports reports) {
  const std::vector<Waiter> waiters = waiters_of(reports);
  if (std::optional<Verdict> verdict = unanswered(reports, waiters)) return *verdict;
  if (std::optional<Verdict> verdict = mismatched(waiters)) return *verdict;
  if (std::optional<Verdict> verdict = lagging(reports, waiters)) return *verdict;
  if (std::optional<Verdict> verdict = outside(reports, waiters)) return *verdict;
  for (int r = 0; r < std::ssize(reports); ++r) {
    if (said_goodbye(reports[static_cast<size_t>(r)])) return early(reports, r);
  }
  return hang(-1, waiters.empty()
                      ? "a phase is over its limit"
                      : fmt::format("all ranks hang in collectives that all have entered, so what "
                                    "carries their messages is stuck: {}",
                                    who_waits(waiters, *waiters[0].in)));
}

Verdict silent_rank_0(const Peer& rank_0, int rank, const Standing& standing) {
  return hang(0,
              fmt::format("{} hangs: it does not answer, so the process is stopped or its host is "
                          "gone; rank {} is {}",
                          describe(0, rank_0), rank, for_how_long(standing)));
}

std::string collective_table(Reports reports) {
  std::string table = fmt::format("{:>5}  {:<20} {:>8}  {:<11} {:>8} {:>8}  {}\n", "rank", "host",
                                  "pid", "phase", "step", "s", "collective");
  for (int r = 0; r < std::ssize(reports); ++r) {
    const RankReport& report = reports[static_cast<size_t>(r)];
    const Standing& at = report.standing;
    const std::string head =
        fmt::format("{:>5}  {:<20} {:>8}  {:<11} {:>8} {:>8.1f}  ", r, report.peer.host,
                    report.peer.pid, name(at.phase), at.step, at.in_phase_s);
    const std::string_view note = report.answered ? "" : ", as last heard: no answer";
    if (at.collectives.empty()) table += fmt::format("{}none{}\n", head, note);
    for (const LoggedCollective& c : at.collectives) {
      const std::string to = c.peer < 0 ? "" : fmt::format(", with rank {} of it", c.peer);
      table += fmt::format("{}{}{}: {}, entered {:.1f} s ago{}\n", head, describe(c), to,
                           c.inside ? "inside" : "left", c.age_s, note);
    }
  }
  return table;
}

}  // namespace qstep::parallel
