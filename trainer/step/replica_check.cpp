#include "trainer/step/replica_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <map>
#include <memory>

#include "parallel/shards.h"
#include "trainer/base/agreement.h"

namespace qstep::trainer {

namespace {

// What is taken from the backend at a time, in elements.
constexpr int64_t kPiece = int64_t{1} << 18;

struct FreeState {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

std::string bucket_name(size_t bucket, size_t n_buckets) {
  if (bucket == kEmbeddingBucket) return "the embeddings";
  if (bucket + 1 == n_buckets) return "what follows the blocks";
  return fmt::format("blocks.{}", bucket - 1);
}

// "rank 3", "ranks 0, 1 and 5"
std::string ranks_text(const std::vector<int>& ranks) {
  if (ranks.size() == 1) return fmt::format("rank {}", ranks[0]);
  return fmt::format("ranks {} and {}", fmt::join(ranks.begin(), ranks.end() - 1, ", "),
                     ranks.back());
}

}  // namespace

template <class F>
std::vector<uint64_t> ReplicaCheck::hashes(ops::Ops& ops, F&& from) const {
  const std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
  std::vector<std::byte> piece(static_cast<size_t>(kPiece * ops::size_bytes(weight_.dtype)));
  std::vector<uint64_t> found;
  for (const Bucket& b : plan_.buckets) {
    XXH3_64bits_reset(state.get());
    for (int64_t i = from(b); i < b.size; i += kPiece) {
      const ops::Tensor part = weight_.col_range(b.first + i, std::min(kPiece, b.size - i));
      ops.download(piece.data(), part);
      XXH3_64bits_update(state.get(), piece.data(), static_cast<size_t>(part.bytes()));
    }
    found.push_back(XXH3_64bits_digest(state.get()));
  }
  return found;
}

// Of the first bucket in which the ranks of the group differ; empty: they are alike.
template <class F>
std::string ReplicaCheck::difference(parallel::Comm& group, const std::vector<uint64_t>& own,
                                     const char* what, F&& world_rank) const {
  const auto n_ranks = static_cast<size_t>(group.size());
  const size_t n = own.size();
  std::vector<uint64_t> all(n_ranks * n);
  std::copy(own.begin(), own.end(), all.begin() + group.rank() * static_cast<int64_t>(n));
  const auto bytes = static_cast<int64_t>(all.size() * sizeof(uint64_t));
  group.wait(group.all_gather(ops::matrix(all.data(), ops::Dtype::kU8, 1, bytes),
                              parallel::even_bounds(bytes, group.size())));
  for (size_t bucket = 0; bucket < n; ++bucket) {
    std::map<uint64_t, std::vector<int>> holders;  // by hash: ranks of the world
    for (size_t r = 0; r < n_ranks; ++r) {
      holders[all[r * n + bucket]].push_back(world_rank(static_cast<int>(r)));
    }
    if (holders.size() == 1) continue;
    const auto most = std::max_element(
        holders.begin(), holders.end(),
        [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
    std::vector<int> others;
    for (const auto& [hash, ranks] : holders) {
      if (hash != most->first) others.insert(others.end(), ranks.begin(), ranks.end());
    }
    std::sort(others.begin(), others.end());
    return fmt::format("{} of {} differ from those of {}, first in {}", what, ranks_text(others),
                       ranks_text(most->second), bucket_name(bucket, n));
  }
  return {};
}

void ReplicaCheck::run(ops::Ops& ops, int64_t step) const {
  parallel::Comm& world = groups_.hosts().world();
  if (world.size() == 1) return;
  const parallel::Mesh& mesh = groups_.mesh();
  std::string text;
  if (mesh.data > 1) {
    text = difference(
        groups_.hosts().data(), hashes(ops, [](const Bucket&) { return int64_t{0}; }), "weights",
        [&](int data_rank) { return mesh.rank(data_rank, mesh.tensor_rank(world.rank())); });
  }
  if (mesh.tensor > 1) {
    const std::string uncut = difference(
        *groups_.hosts().tensor(), hashes(ops, [](const Bucket& b) { return b.split_size; }),
        "weights that are not cut",
        [&](int tensor_rank) { return mesh.rank(mesh.data_rank(world.rank()), tensor_rank); });
    if (text.empty()) text = uncut;
  }
  agree(world, [&] {
    if (text.empty()) return;
    throw ops::Error(ops::ExitCode::kCorruption,
                     fmt::format("behind step {}, {}: a memory, a link or a processor is faulty, "
                                 "or qstep is; resume from the last checkpoint, which was written "
                                 "while they were alike, and on other nodes if it happens again",
                                 step, text));
  });
}

}  // namespace qstep::trainer
