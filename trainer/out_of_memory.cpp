#include "trainer/out_of_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "trainer/format.h"

namespace qstep::trainer {

namespace {

constexpr size_t kShown = 4;

// What makes an owner of training_memory smaller. What is not here grows with the model alone.
struct Remedy {
  std::string_view owner, text;
};
constexpr std::string_view kTokens = "lower train.micro_batch or train.seq_len";
constexpr std::array kRemedies{
    Remedy{"activations", kTokens},
    Remedy{"activation gradients", kTokens},
    Remedy{"quantized operands", kTokens},
    Remedy{"logits", kTokens},
    Remedy{"gradients",
           "set parallel.reduction=rank (one gradient buffer instead of a tree of them), or share "
           "the model over more ranks (parallel.tensor)"},
    Remedy{"optimizer state",
           "use more ranks: they share it (parallel.optimizer=sharded, or parallel.tensor)"},
    Remedy{"master weights",
           "use more ranks: they share them (parallel.optimizer=sharded, or parallel.tensor)"}};
constexpr std::string_view kSmallerModel =
    "share the model over more ranks (parallel.tensor), or take a smaller one";

std::string_view remedy_for(const std::string& owner) {
  const auto* const found = std::find_if(kRemedies.begin(), kRemedies.end(),
                                         [&](const Remedy& r) { return r.owner == owner; });
  return found == kRemedies.end() ? kSmallerModel : found->text;
}

}  // namespace

ops::Error with_owners(const ops::Error& error, std::span<const MemoryRow> rows) {
  int64_t sum = 0, rest = 0;
  std::string owners;
  for (size_t i = 0; i < rows.size(); ++i) {
    sum += rows[i].bytes;
    if (i >= kShown) rest += rows[i].bytes;
  }
  for (size_t i = 0; i < std::min(kShown, rows.size()); ++i) {
    owners += fmt::format("{}{} {}", i == 0 ? "" : ", ", rows[i].owner, bytes_text(rows[i].bytes));
  }
  if (rest > 0) owners += fmt::format(", others {}", bytes_text(rest));
  // The same remedy is said once.
  std::string remedies;
  for (size_t i = 0; i < std::min<size_t>(2, rows.size()); ++i) {
    const std::string_view remedy = remedy_for(rows[i].owner);
    if (remedies.find(remedy) != std::string::npos) continue;
    remedies += fmt::format("{}{}", remedies.empty() ? "" : "; or ", remedy);
  }
  return {error.code(),
          fmt::format("{}\n  this rank's tensors take {}: {}\n  {}; `qstep plan` shows "
                      "what each of these changes",
                      error.what(), bytes_text(sum), owners, remedies)};
}

}  // namespace qstep::trainer
