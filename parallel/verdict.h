// What the ranks of a run agree on when it cannot go on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ops/error.h"

namespace qstep::parallel {

// Where a rank runs.
struct Peer {
  std::string host;
  int64_t pid = 0;
};

struct Verdict {
  ops::ExitCode code = ops::ExitCode::kPeerDied;   // how the other ranks end: kPeerDied or kHang
  ops::ExitCode cause = ops::ExitCode::kPeerDied;  // how the rank at fault ended, else `code`
  int rank = -1;                                   // at fault; -1: no single one
  std::string text;                                // one line, for the user
};

// How near to the root of the trouble a code is; of two causes the greater is told. GPU and memory,
// then numbers, then input and disk, then any other end, then a death, then a hang.
int weight(ops::ExitCode code);

// "rank 2 (host, pid 1234)"
std::string describe(int rank, const Peer& peer);

// In what follows, `place` is "in step 17, in the phase step".

// `how` the connection ended: "connection closed".
Verdict died(int rank, const Peer& peer, std::string_view place, std::string_view how);
// Tells the first line of `error`.
Verdict ended_by_error(int rank, ops::ExitCode cause, std::string_view error);
// Said goodbye `place`, while rank `other` was still `place_of_other`.
Verdict ended_early(int rank, const Peer& peer, std::string_view place, int other,
                    std::string_view place_of_other);

std::string pack(const Verdict& verdict);
// Throws WireError.
Verdict unpack_verdict(std::string_view bytes);

}  // namespace qstep::parallel
