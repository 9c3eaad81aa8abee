// A group of ranks that run the same program, and its collectives.
//
// A collective is handed over and runs beside what the caller goes on to compute, in the order of
// the calls; wait() joins the two again. A world's tensors are in one kind of memory: the host's,
// or that of the ranks' GPUs. All ranks of a group make the same calls in the same order. Sums are
// formed in the tree of reduction_tree.h with the ranks as its leaves, in FP32: equal bits for an
// equal number of ranks, whatever carries the messages.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/tensor.h"
#include "parallel/collective_observer.h"

namespace qstep::parallel {

enum class Reduce : uint8_t { kSum, kMax };

// How a tensor of n elements is cut: part r is elements [bounds[r], bounds[r + 1]), one part per
// rank, bounds[0] = 0, bounds[size] = n. Parts may be empty.
using Bounds = std::span<const int64_t>;

// Since the start of the group, all groups of a world together.
struct CommTimes {
  double busy_ms = 0;      // collectives were running
  int64_t bytes_sent = 0;  // to other ranks
  int64_t messages_sent = 0;
};

class Comm {
 public:
  // Collectives are numbered in the order of the calls.
  using Ticket = uint64_t;

  virtual ~Comm() = default;
  virtual std::string_view name() const = 0;  // "single", "mpi", "nccl"
  // What records of this group's collectives call it (CollectiveRecord::group): equal on all its
  // ranks, different for different groups, also of different worlds.
  virtual std::string_view group() const = 0;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Tensors are contiguous, may be empty, and belong to the collective until wait(): nobody else
  // writes to them, nor reads what it writes. Sizes, types and arguments are equal on all ranks
  // unless said otherwise. Bounds are copied.

  // x[i] becomes the sum (FP32, BF16, int32) or maximum (FP32, int32) of x[i] over the ranks. A
  // BF16 sum is formed in FP32 and rounded once, to nearest even.
  virtual Ticket all_reduce(const ops::Tensor& x, Reduce reduce) = 0;
  // This rank's part of x becomes the sum of that part over the ranks; FP32 or BF16. The other
  // parts keep this rank's elements.
  virtual Ticket reduce_scatter(const ops::Tensor& x, Bounds bounds) = 0;
  // Every part of x becomes what the rank that it belongs to has there; any type.
  virtual Ticket all_gather(const ops::Tensor& x, Bounds bounds) = 0;
  // x of `root` reaches every rank; any type.
  virtual Ticket broadcast(const ops::Tensor& x, int root) = 0;
  // Equal parts: part r of `out` becomes the part of rank r's `in` that is this rank's; any type.
  // The number of elements is a multiple of size().
  virtual Ticket all_to_all(const ops::Tensor& out, const ops::Tensor& in) = 0;
  // A pair of calls on two ranks; the others make none. Messages between two ranks arrive in order.
  virtual Ticket send(const ops::Tensor& x, int to) = 0;
  virtual Ticket receive(const ops::Tensor& x, int from) = 0;
  virtual Ticket barrier() = 0;

  // What the caller does from here on comes behind this collective and all before it. On the host:
  // returns when they are done. On a GPU its stream waits, and the host goes on at once. Throws
  // Error (peer died, hang) when they never will be done, as far as that is known.
  virtual void wait(Ticket ticket) = 0;
  // Ahead of where the host itself waits for its GPU: returns when that is done with all that its
  // stream was given, waits for collectives included. Throws as wait does, also while it waits:
  // nothing else tells a host whose GPU stands still for a rank that died. On the host there is
  // nothing left to wait for.
  virtual void synchronize() {}

  // The ranks that call with the same color, in the order of their key, then of their rank. A
  // collective itself, and done on return. Its collectives are ordered with those of this group.
  virtual std::unique_ptr<Comm> split(int color, int key) = 0;

  virtual CommTimes times() const = 0;

  // From now on the observer hears of all collectives of this world, whichever group they are of
  // (parallel/collective_observer.h); nullptr ends that. It is the caller's, and outlives the world
  // or is taken back. A world of one rank has nothing to tell.
  virtual void observe(CollectiveObserver*) {}
};

// Comm::group() of whole worlds: over memory of hosts and of GPUs.
inline constexpr std::string_view kHostsGroup = "world", kGpusGroup = "gpus";

// One rank: every collective leaves its tensor as it is.
std::unique_ptr<Comm> make_single();

// Equal on all ranks, done on return: texts of rank 0, 1, ...; the text of `root`.
std::vector<std::string> all_gather_text(Comm& comm, std::string_view text);
std::string broadcast_text(Comm& comm, std::string_view text, int root);

}  // namespace qstep::parallel
