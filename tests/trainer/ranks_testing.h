// Tensors that several ranks hold in pieces, cut at random, for tests of their checkpoints.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "tests/support/thread_comm.h"
#include "trainer/checkpoint/checkpoint.h"

namespace qstep::trainer::testing {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  // In [low, high].
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1));
  }

 private:
  std::mt19937_64 engine_;
};

// A slice of tensor number `tensor` that `rank` holds.
struct Piece {
  size_t tensor = 0;
  int rank = 0;
  Slice slice;
};

// The tensors as one memory would have them; names, shapes, types and bytes follow from the seed.
class GlobalTensors {
 public:
  explicit GlobalTensors(uint64_t seed, size_t n_tensors = 4) {
    constexpr std::array kNames = {"master/a.weight", "master/b.weight", "adam_m/a.weight",
                                   "scale"};
    Random random(seed);
    for (const char* name : std::span(kNames).first(n_tensors)) {
      const auto dtype = static_cast<ops::Dtype>(random.between(0, 2));
      const int64_t rows = random.between(1, 9), cols = random.between(1, 9);
      storage_.emplace_back(static_cast<size_t>(rows * cols * ops::size_bytes(dtype)));
      for (uint8_t& byte : storage_.back()) byte = static_cast<uint8_t>(random.between(0, 255));
      tensors_.push_back({name, ops::matrix(storage_.back().data(), dtype, rows, cols)});
    }
  }

  const std::vector<NamedTensor>& tensors() const { return tensors_; }

  // Every tensor cut into blocks of rows or columns, every block into runs, every run given to a
  // rank that is drawn.
  std::vector<Piece> cut(Random& random, int n_ranks) const {
    std::vector<Piece> pieces;
    for (size_t t = 0; t < tensors_.size(); ++t) {
      const int64_t rows = tensors_[t].tensor.rows, cols = tensors_[t].tensor.cols;
      const bool by_rows = random.between(0, 1) == 0;
      const int64_t size = by_rows ? rows : cols;
      for (int64_t first = 0, n = 0; first < size; first += n) {
        n = random.between(1, size - first);
        const Slice all =
            by_rows ? block(rows, cols, first, 0, n, cols) : block(rows, cols, 0, first, rows, n);
        for (int64_t from = 0, count = 0; from < all.count; from += count) {
          count = random.between(1, all.count - from);
          pieces.push_back(
              {t, static_cast<int>(random.between(0, n_ranks - 1)), run_of(all, from, count)});
        }
      }
    }
    return pieces;
  }

  // The elements of a slice, in its order.
  std::vector<uint8_t> bytes_of(const Piece& piece) const {
    const ops::Tensor& x = tensors_[piece.tensor].tensor;
    const auto size = static_cast<size_t>(ops::size_bytes(x.dtype));
    std::vector<uint8_t> bytes;
    for (int64_t i = 0; i < piece.slice.count; ++i) {
      const int64_t element = piece.slice.row_of(i) * x.cols + piece.slice.col_of(i);
      const auto* const from =
          static_cast<const uint8_t*>(x.data) + static_cast<size_t>(element) * size;
      bytes.insert(bytes.end(), from, from + size);
    }
    return bytes;
  }

  // The piece by its tensor's name, in memory of `bytes`.
  NamedTensor named(const Piece& piece, std::vector<uint8_t>& bytes) const {
    const NamedTensor& whole_tensor = tensors_[piece.tensor];
    return {whole_tensor.name,
            ops::matrix(bytes.data(), whole_tensor.tensor.dtype, 1, piece.slice.count),
            piece.slice};
  }

  // What one rank does in a save of `pieces`.
  void save(parallel::Comm& comm, const std::string& root, const CheckpointState& state,
            const std::vector<Piece>& pieces, const StepHook& hook = {},
            int64_t keep_last = 0) const {
    std::vector<std::vector<uint8_t>> memory;
    std::vector<NamedTensor> own;
    memory.reserve(pieces.size());  // inner buffers stay where they are
    for (const Piece& piece : pieces) {
      if (piece.rank != comm.rank()) continue;
      memory.push_back(bytes_of(piece));
      own.push_back(named(piece, memory.back()));
    }
    save_checkpoint(comm, root, state, own, keep_last, hook);
  }

  // Whether the checkpoint has the right bits where `piece` is.
  bool agrees(const CheckpointReader& reader, const Piece& piece) const {
    const std::vector<uint8_t> expected = bytes_of(piece);
    std::vector<uint8_t> found(expected.size());
    reader.read(named(piece, found));
    return found == expected;
  }

 private:
  std::vector<std::vector<uint8_t>> storage_;
  std::vector<NamedTensor> tensors_;
};

}  // namespace qstep::trainer::testing
