// What a world tells whoever watches over it, and what it asks: the hooks of a watchdog.
//
// A world makes all these calls from one thread, one at a time: the one that communicates, or with
// GPUs the caller's. They must neither block nor throw, nor call the world. Who observes two worlds
// is called by both at once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ops/tensor.h"

namespace qstep::parallel {

// One collective, or a send or receive, of one rank.
struct CollectiveRecord {
  // Comm::group(): kHostsGroup or kGpusGroup, and "<parent>/<number of the split>:<color>" for the
  // groups split from it. Lives as long as the group.
  std::string_view group;
  // The first collective of a group is 1; ranks that stand in the same collective have the same
  // number. Sends and receives, of which other ranks know nothing, are numbered apart from those.
  uint64_t sequence = 0;
  std::string_view operation;  // "all_reduce", "send", ...; a literal
  int64_t bytes = 0;           // of the whole tensor
  ops::Dtype dtype = ops::Dtype::kU8;
  int peer = -1;  // rank in the group that a send goes to or a receive comes from; otherwise -1
  // In left(), of worlds that call late, as a GPU's host does: when it ran, ns of the steady clock.
  // Otherwise 0: between the two calls.
  int64_t begin_ns = 0, end_ns = 0;
};

// Why collectives that were handed over will never be done: kPeerDied or kHang, and the text for
// the user.
struct Failure {
  ops::ExitCode code = ops::ExitCode::kPeerDied;
  std::string text;
};

class CollectiveObserver {
 public:
  virtual ~CollectiveObserver() = default;
  // This rank begins a collective: it was handed over, and all before it are done. So at most one
  // is in progress, but for sends and receives, which may pass each other.
  virtual void entered(const CollectiveRecord& record) = 0;
  // The same record, when this rank has what it needs; other ranks may still be at it. Not called
  // for what a failure ended.
  virtual void left(const CollectiveRecord& record) = 0;
  // Asked at every poll, up to millions of times a second, while something is in progress. With an
  // answer, every pending and every later wait() throws an Error of this code and text.
  virtual std::optional<Failure> failure() = 0;
};

}  // namespace qstep::parallel
