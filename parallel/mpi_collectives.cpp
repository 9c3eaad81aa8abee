#include "parallel/mpi_collectives.h"

#include <algorithm>
#include <cstring>

#include "parallel/reduce_tree.h"
#include "parallel/shards.h"

namespace qstep::parallel {

namespace {

using ops::Dtype;
using ops::Tensor;

// Up to here an all_reduce is one exchange per level of the tree: fewer messages, more bytes. 64 KB
// take as long as the few microseconds of a message at 10 GB/s.
constexpr int64_t kSmallBytes = int64_t{64} << 10;

// Part of a tensor that one message of a reduce_scatter carries. Long enough that a message's cost
// vanishes beside its bytes and that one node copies it in one go, short enough that a sum is
// formed from the caches.
constexpr int64_t kPieceBytes = int64_t{1} << 20;
// Where many ranks send pieces, they are shorter, so that two of each stay within this.
constexpr int64_t kStagingBytes = int64_t{64} << 20;
constexpr int64_t kLineBytes = 64;

// The same on all ranks, and of no influence on any bit: elements are added one by one.
int64_t piece_bytes(int n_ranks) {
  const int64_t share = kStagingBytes / (2 * std::max(n_ranks - 1, 1));
  return std::clamp(share / kLineBytes * kLineBytes, kLineBytes, kPieceBytes);
}

}  // namespace

// A tensor cut into one part per rank.
struct MpiCollectives::Parts {
  static Parts of(const Tensor& x, const std::vector<int64_t>& its_bounds) {
    return {static_cast<char*>(x.data), x.dtype, its_bounds};
  }

  char* part(int rank) const { return data + begin(rank); }
  int64_t bytes(int rank) const { return begin(rank + 1) - begin(rank); }
  int64_t begin(int rank) const {
    return bounds[static_cast<size_t>(rank)] * ops::size_bytes(dtype);
  }

  char* data;
  Dtype dtype;
  const std::vector<int64_t>& bounds;
};

void MpiCollectives::run(const MpiCommand& c) {
  const auto kind = static_cast<int>(c.operation);
  switch (c.operation) {
    case Operation::kAllReduce:
      return all_reduce(*c.group, kind, c.x, c.reduce);
    case Operation::kReduceScatter:
      return reduce_scatter(*c.group, kind, Parts::of(c.x, c.bounds), c.reduce);
    case Operation::kAllGather:
    case Operation::kSplit:
      return all_gather(*c.group, kind, Parts::of(c.x, c.bounds));
    case Operation::kBroadcast:
      return broadcast(*c.group, kind, c.x, c.peer);
    case Operation::kAllToAll:
      return all_to_all(*c.group, kind, c.x, c.in);
    case Operation::kBarrier:
      return barrier(*c.group, kind);
    case Operation::kSend:
    case Operation::kReceive:
      break;
  }
  ops::check(false, "not a collective");
}

void MpiCollectives::all_reduce(const MpiGroup& group, int kind, const Tensor& x, Reduce reduce) {
  if (group.size() == 1 || x.size() == 0) return;
  if (x.size() * ops::size_bytes(partial_dtype(x.dtype)) <= kSmallBytes) {
    return all_reduce_small(group, kind, x, reduce);
  }
  bounds_.resize(static_cast<size_t>(group.size()) + 1);
  even_bounds(bounds_, x.size());
  const Parts parts = Parts::of(x, bounds_);
  reduce_scatter(group, kind, parts, reduce);
  all_gather(group, kind, parts);
}

// Ranks in blocks of 1, 2, 4, ...: all ranks of a block hold its partial result, a node of the
// tree, and exchange it with the neighbouring block. The last block may be short: then its last
// rank also serves those that have no counterpart.
void MpiCollectives::all_reduce_small(const MpiGroup& group, int kind, const Tensor& x,
                                      Reduce reduce) {
  const Dtype dtype = partial_dtype(x.dtype);
  const int64_t bytes = x.size() * ops::size_bytes(dtype);
  char* const mine = staging_.take<char>(2 * kSmallBytes);
  char* const theirs = mine + kSmallBytes;
  const int rank = group.rank, last = group.size() - 1;
  const void* const values[] = {x.data};
  reduce_tree(mine, dtype, values, x.dtype, x.size(), reduce);
  Messages& messages = messages_[0];
  for (int width = 1; width <= last; width *= 2) {
    const int neighbours = (rank / width ^ 1) * width;  // first rank of the neighbouring block
    if (neighbours > last) continue;
    const int counterpart = rank ^ width;
    messages.receive(group, std::min(counterpart, last), kind, theirs, bytes);
    if (counterpart <= last) messages.send(group, counterpart, kind, mine, bytes);
    if (rank == last) {
      for (int other = neighbours; other < neighbours + width; ++other) {
        if ((other ^ width) > last) messages.send(group, other, kind, mine, bytes);
      }
    }
    until_done_(messages);
    const bool left = rank < neighbours;
    const void* const nodes[] = {left ? mine : theirs, left ? theirs : mine};
    reduce_tree(mine, dtype, nodes, dtype, x.size(), reduce);
  }
  const void* const results[] = {mine};
  reduce_tree(x.data, x.dtype, results, dtype, x.size(), reduce);
}

// In rounds: round k moves piece k of every part to its owner. Two rounds are under way, and the
// pieces of one are added while those of the next arrive.
void MpiCollectives::reduce_scatter(const MpiGroup& group, int kind, const Parts& parts,
                                    Reduce reduce) {
  const int n = group.size(), rank = group.rank;
  if (n == 1) return;
  const int64_t piece = piece_bytes(n);
  int64_t longest = 0;
  for (int r = 0; r < n; ++r) longest = std::max(longest, parts.bytes(r));
  const int64_t n_rounds = (longest + piece - 1) / piece;
  char* const staging = staging_.take<char>(2 * (n - 1) * piece);

  // Bytes of round `round` that rank r owns; 0 where its part has ended.
  const auto bytes = [&](int r, int64_t round) {
    return std::clamp(parts.bytes(r) - round * piece, int64_t{0}, piece);
  };
  // Where the piece of rank r lies.
  const auto place = [&](int r, int64_t round) {
    return staging + (round % 2 * (n - 1) + (r < rank ? r : r - 1)) * piece;
  };
  const auto start = [&](int64_t round) {
    Messages& messages = messages_[round % 2];
    const int64_t own = bytes(rank, round);
    // Everybody begins with another rank.
    for (int i = 1; i < n && own > 0; ++i) {
      const int from = (rank - i + n) % n;
      messages.receive(group, from, kind, place(from, round), own);
    }
    for (int i = 1; i < n; ++i) {
      const int to = (rank + i) % n;
      if (bytes(to, round) == 0) continue;
      messages.send(group, to, kind, parts.part(to) + round * piece, bytes(to, round));
    }
  };

  for (int64_t round = 0; round < std::min<int64_t>(2, n_rounds); ++round) start(round);
  for (int64_t round = 0; round < n_rounds; ++round) {
    until_done_(messages_[round % 2]);
    char* const result = parts.part(rank) + round * piece;
    sources_.clear();
    for (int r = 0; r < n; ++r) sources_.push_back(r == rank ? result : place(r, round));
    reduce_tree(result, parts.dtype, sources_, parts.dtype,
                bytes(rank, round) / ops::size_bytes(parts.dtype), reduce);
    if (round + 2 < n_rounds) start(round + 2);
  }
}

void MpiCollectives::all_gather(const MpiGroup& group, int kind, const Parts& parts) {
  const int n = group.size(), rank = group.rank;
  Messages& messages = messages_[0];
  for (int i = 1; i < n; ++i) {
    const int from = (rank - i + n) % n;
    if (parts.bytes(from) > 0) {
      messages.receive(group, from, kind, parts.part(from), parts.bytes(from));
    }
  }
  for (int i = 1; i < n && parts.bytes(rank) > 0; ++i) {
    messages.send(group, (rank + i) % n, kind, parts.part(rank), parts.bytes(rank));
  }
  until_done_(messages);
}

// Ranks counted from the root: v hears from v without its lowest bit, and tells v + 1, v + 2,
// v + 4, ... below that bit, the farthest, which has most to pass on, first.
void MpiCollectives::broadcast(const MpiGroup& group, int kind, const Tensor& x, int root) {
  const int n = group.size();
  if (x.size() == 0) return;
  const auto rank_of = [&](int v) { return (v + root) % n; };
  const int v = (group.rank - root + n) % n;
  Messages& messages = messages_[0];
  int below = v & -v;
  if (v == 0) {
    for (below = 1; below < n;) below *= 2;
  } else {
    messages.receive(group, rank_of(v - below), kind, x.data, x.bytes());
    until_done_(messages);
  }
  for (int step = below / 2; step > 0; step /= 2) {
    if (v + step < n) messages.send(group, rank_of(v + step), kind, x.data, x.bytes());
  }
  until_done_(messages);
}

void MpiCollectives::all_to_all(const MpiGroup& group, int kind, const Tensor& out,
                                const Tensor& in) {
  if (in.size() == 0) return;
  const int n = group.size(), rank = group.rank;
  const int64_t bytes = in.bytes() / n;
  char* const received = static_cast<char*>(out.data);
  const char* const sent = static_cast<const char*>(in.data);
  Messages& messages = messages_[0];
  for (int i = 1; i < n; ++i) {
    const int from = (rank - i + n) % n;
    messages.receive(group, from, kind, received + from * bytes, bytes);
  }
  for (int i = 1; i < n; ++i) {
    const int to = (rank + i) % n;
    messages.send(group, to, kind, sent + to * bytes, bytes);
  }
  std::memcpy(received + rank * bytes, sent + rank * bytes, static_cast<size_t>(bytes));
  until_done_(messages);
}

// Round k: tell the rank 2^k after this one, hear from the one 2^k before. After log2 R rounds
// everybody has heard of everybody (Hensgen, Finkel, Manber, 1988).
void MpiCollectives::barrier(const MpiGroup& group, int kind) {
  const int n = group.size(), rank = group.rank;
  Messages& messages = messages_[0];
  for (int distance = 1; distance < n; distance *= 2) {
    messages.receive(group, (rank - distance + n) % n, kind, nullptr, 0);
    messages.send(group, (rank + distance) % n, kind, nullptr, 0);
    until_done_(messages);
  }
}

}  // namespace qstep::parallel
