// How a GPU makes the three products of a linear layer in every format: asked of its library, never
// looked up.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "ops/ops.h"

namespace qstep::trainer {

enum class Runs : uint8_t {
  kNative,       // by the matrix units, from the codes
  kEmulated,     // rounded to the format, decoded, multiplied in the compute type
  kUnsupported,  // not at all
};
constexpr std::string_view name(Runs runs) {
  constexpr std::string_view kNames[] = {"native", "emulated", "unsupported"};
  return kNames[static_cast<size_t>(runs)];
}

// A format: what recipes make of x, w and dy with it.
struct FormatRow {
  std::string_view format;
  std::array<Runs, precision::kGemms.size()> runs{};  // by Gemm
};

// For a layer of a size that no library has objections to. Small products are made on the way, to
// see which types there are.
std::vector<FormatRow> product_matrix(ops::Ops& ops);

}  // namespace qstep::trainer
