// The collectives as messages and sums, written as they read; they run on the communication thread,
// one after the other.
//
// R ranks, n bytes. Every algorithm sends straight to the rank that needs the data.
//   reduce_scatter, all_gather, all_to_all   R - 1 messages of n / R: each rank with each other
//   all_reduce, up to kSmallBytes            log2 R exchanges of n: recursive doubling
//   all_reduce, more                         reduce_scatter and all_gather
//   broadcast                                a binomial tree: log2 R messages at the root
//   barrier                                  log2 R empty messages: dissemination
#pragma once

#include <functional>
#include <vector>

#include "ops/workspace.h"
#include "parallel/mpi_command.h"

namespace qstep::parallel {

class MpiCollectives {
 public:
  // `until_done` lets MPI work until all of the messages are through, or throws.
  using Wait = std::function<void(Messages&)>;
  MpiCollectives(Traffic& traffic, Wait until_done)
      : until_done_(std::move(until_done)), messages_{Messages(traffic), Messages(traffic)} {}

  // Any but a send or receive.
  void run(const MpiCommand& command);

 private:
  struct Parts;

  void all_reduce(const MpiGroup& group, int kind, const ops::Tensor& x, Reduce reduce);
  void all_reduce_small(const MpiGroup& group, int kind, const ops::Tensor& x, Reduce reduce);
  void reduce_scatter(const MpiGroup& group, int kind, const Parts& parts, Reduce reduce);
  void all_gather(const MpiGroup& group, int kind, const Parts& parts);
  void broadcast(const MpiGroup& group, int kind, const ops::Tensor& x, int root);
  void all_to_all(const MpiGroup& group, int kind, const ops::Tensor& out, const ops::Tensor& in);
  void barrier(const MpiGroup& group, int kind);

  Wait until_done_;
  Messages messages_[2];  // both only where one piece is added while the next one arrives
  // Grow to the largest request and stay.
  ops::Workspace staging_;
  std::vector<int64_t> bounds_;
  std::vector<const void*> sources_;
};

}  // namespace qstep::parallel
