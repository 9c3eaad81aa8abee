// A quantizer that asks its tensor group for amaxes, cut where it asks. On a GPU it is a kernel
// that finds an amax and one that rounds by it; the CPU's is one call, which is made once for each
// piece here: results of all but the last are written over.
#pragma once

#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "ops/quantized_tensor.h"

namespace qstep::test {

// Of one call, in the order in which it asks: this rank's, then the group's in its place.
using GroupAmaxes = std::deque<std::vector<int32_t>>;

// For the piece ahead of the question `piece`: answers those before it by what the group said, and
// leaves what the group is to be asked. The last piece asks nothing.
class PieceOfQuantizer final : public ops::AmaxJoin {
 public:
  PieceOfQuantizer(GroupAmaxes& amaxes, size_t piece) : amaxes_(amaxes), piece_(piece) {}

  void max(const ops::Tensor& bits) override {
    const size_t i = n_asked_++;
    if (i > piece_) return;
    std::vector<int32_t>& kept = amaxes_[i];
    ops::check(bits.size() == static_cast<int64_t>(kept.size()), "an amax of another size");
    const auto bytes = static_cast<size_t>(bits.bytes());
    if (i < piece_) {
      std::memcpy(bits.data, kept.data(), bytes);
    } else {
      std::memcpy(kept.data(), bits.data, bytes);
    }
  }

 private:
  GroupAmaxes& amaxes_;
  size_t piece_, n_asked_ = 0;
};

// For the whole call: finds out how often it asks, and calls piece_ends(i) ahead of question i.
template <class F>
class NotingAmaxes final : public ops::AmaxJoin {
 public:
  NotingAmaxes(GroupAmaxes& amaxes, ops::AmaxJoin& group, F piece_ends)
      : amaxes_(amaxes), group_(group), piece_ends_(std::move(piece_ends)) {}

  void max(const ops::Tensor& bits) override {
    const auto* const first = static_cast<const int32_t*>(bits.data);
    std::vector<int32_t>& kept = amaxes_.emplace_back(first, first + bits.size());
    piece_ends_(amaxes_.size() - 1);
    group_.max(ops::matrix(kept.data(), ops::Dtype::kI32, 1, bits.size()));
    std::memcpy(bits.data, kept.data(), static_cast<size_t>(bits.bytes()));
  }

 private:
  GroupAmaxes& amaxes_;
  ops::AmaxJoin& group_;
  F piece_ends_;
};

}  // namespace qstep::test
