// What rank 0 knows of all ranks and makes of it. A state machine: events and times go in, verdicts
// come out; it sends nothing and looks at no clock.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/hang.h"
#include "parallel/standing.h"
#include "parallel/verdict.h"

namespace qstep::parallel {

class WatchdogHub {
 public:
  // `first`: where every rank stands until it is heard.
  WatchdogHub(const std::vector<Peer>& peers, const Standing& first, double answer_s, double now_s);

  void heard(int rank, Standing standing, double now_s);     // a heartbeat
  void answered(int rank, Standing standing, double now_s);  // an answer to a query
  std::optional<Verdict> closed(int rank, std::string_view how);
  // A rank whose collectives failed knows no more than that: its kPeerDied or kHang becomes a
  // verdict only if nothing better is heard within a second.
  std::optional<Verdict> farewell(int rank, ops::ExitCode code, std::string_view error,
                                  double now_s);

  // What the passing of time brings.
  std::optional<Verdict> tick(double now_s);
  // Whether all ranks are to be asked now where they stand; true once for each inquiry.
  bool take_query();

  // Rank 0 as a process stood still for so long, which counts for nobody.
  void pause(double seconds);

  bool all_said_goodbye() const;
  // Ranks that died, not those that ended on an error.
  const std::vector<bool>& dead() const { return dead_; }
  std::string table(double now_s) const;

 private:
  struct Rank {
    Peer peer;
    Standing standing;
    double heard_s = 0;
    bool ended = false;  // on an error of its own
    bool answered = false;
  };

  Rank& at(int rank) { return ranks_.at(static_cast<size_t>(rank)); }
  bool somebody_over_limit(double now_s) const;
  std::vector<RankReport> reports(double now_s) const;

  double answer_s_;
  std::vector<Rank> ranks_;
  std::vector<bool> dead_;
  std::optional<double> asked_s_;  // of the inquiry under way
  double ask_again_s_ = 0;         // not before: the suspect may still come
  bool query_ = false;
  std::optional<Verdict> symptom_;
  double symptom_s_ = 0;
};

}  // namespace qstep::parallel
