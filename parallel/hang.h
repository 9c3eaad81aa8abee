// Whose fault a hang is, judged from where every rank stands. Arithmetic on reports: no clock, no
// thread, no message.
#pragma once

#include <span>
#include <string>

#include "parallel/standing.h"
#include "parallel/verdict.h"

namespace qstep::parallel {

struct RankReport {
  Peer peer;
  bool answered = true;  // otherwise `standing` is the last that was heard
  Standing standing;     // now
};

// The suspect is, in this order:
// * a rank that does not answer;
// * no single one, when ranks stand in different collectives under one number;
// * a rank that has not entered a collective in which another one waits: of several, one that waits
//   nowhere itself before one that does, then the lowest sequence number;
// * of the ranks outside of all collectives, the one that is furthest over its limit;
// * a rank that said goodbye while others go on;
// * no single one, when all wait: what carries the messages is stuck.
// A suspect that said goodbye ended early, which is no hang. Reports are by rank, at least one.
Verdict judge_hang(std::span<const RankReport> reports);

// What rank `rank` makes of a rank 0 that does not react although a phase here is over its limit.
Verdict silent_rank_0(const Peer& rank_0, int rank, const Standing& standing);

// One line per rank and collective of its report: who entered what.
std::string collective_table(std::span<const RankReport> reports);

}  // namespace qstep::parallel
