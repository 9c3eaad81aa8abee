#include "trainer/step/out_of_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "trainer/base/format.h"
#include "trainer/step/machine_memory.h"

namespace qstep::trainer {

namespace {

constexpr size_t kShown = 4;

// Owners that grow with the tokens of a pass.
constexpr std::array<std::string_view, 6> kOfTokens{"activations",        "activation gradients",
                                                    "quantized operands", "logits",
                                                    "key/value cache",    kGpuScratchOwner};

// By MemoryUse, what makes smaller what grows with the tokens, and what grows with the model alone.
struct Remedies {
  std::string_view tokens, model;
};
constexpr std::string_view kOnProcessor = "leave the GPU: --device cpu takes memory of the host";
constexpr std::array<Remedies, 3> kRemedies{
    {{"lower train.micro_batch or train.seq_len",
      "share the model over more ranks (parallel.tensor), or take a smaller one"},
     {"lower --micro-batch", kOnProcessor},
     {"shorten the prompt or lower --tokens", kOnProcessor}}};

// Of owners that a training run alone has.
struct OwnersRemedy {
  std::string_view owner, text;
};
constexpr std::array kOfTraining{
    OwnersRemedy{"gradients",
                 "set parallel.reduction=rank (one gradient buffer instead of a tree of them), or "
                 "share the model over more ranks (parallel.tensor)"},
    OwnersRemedy{"optimizer state",
                 "use more ranks: they share it (parallel.optimizer=sharded, or parallel.tensor)"},
    OwnersRemedy{
        "master weights",
        "use more ranks: they share them (parallel.optimizer=sharded, or parallel.tensor)"},
    OwnersRemedy{kNcclOwner, "set NCCL_MAX_P2P_NCHANNELS, the channels of a pair of ranks, lower"}};

std::string_view remedy_for(std::string_view owner, MemoryUse use) {
  const Remedies& remedies = kRemedies[static_cast<size_t>(use)];
  if (std::find(kOfTokens.begin(), kOfTokens.end(), owner) != kOfTokens.end()) {
    return remedies.tokens;
  }
  const auto* const found = std::find_if(kOfTraining.begin(), kOfTraining.end(),
                                         [&](const OwnersRemedy& r) { return r.owner == owner; });
  return found == kOfTraining.end() ? remedies.model : found->text;
}

}  // namespace

ops::Error with_owners(const ops::Error& error, std::span<const MemoryRow> rows, MemoryUse use) {
  std::string owners;
  const size_t n_shown = std::min(kShown, rows.size());
  const int64_t rest = total_bytes(rows.subspan(n_shown));
  for (size_t i = 0; i < n_shown; ++i) {
    owners += fmt::format("{}{} {}", i == 0 ? "" : ", ", rows[i].owner, bytes_text(rows[i].bytes));
  }
  if (rest > 0) owners += fmt::format(", others {}", bytes_text(rest));
  // The same remedy is said once.
  std::string remedies;
  for (size_t i = 0; i < std::min<size_t>(2, rows.size()); ++i) {
    const std::string_view remedy = remedy_for(rows[i].owner, use);
    if (remedies.find(remedy) != std::string::npos) continue;
    remedies += fmt::format("{}{}", remedies.empty() ? "" : "; or ", remedy);
  }
  const bool plannable = use == MemoryUse::kTraining;
  return {
      error.code(),
      fmt::format("{}\n  {} tensors take {}: {}\n  {}{}", error.what(),
                  plannable ? "this rank's" : "the", bytes_text(total_bytes(rows)), owners,
                  remedies, plannable ? "; `qstep plan` shows what each of these changes" : "")};
}

}  // namespace qstep::trainer
