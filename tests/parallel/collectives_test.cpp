// Every collective against what this rank computes alone from the seeds of all: equal bits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/parallel/rank_data.h"
#include "tests/parallel/world_main.h"

namespace qstep::parallel {
namespace {

// Nothing, less than one vector, odd sizes, both sides of where algorithms change.
constexpr int64_t kSizes[] = {0, 1, 2, 3, 17, 255, 1000, 4096, 16384, 16385, 70001};

std::vector<Bytes> inputs_of_all(Dtype dtype, int64_t n, uint64_t seed) {
  std::vector<Bytes> inputs;
  for (int r = 0; r < world().size(); ++r) {
    inputs.push_back(random_elements(dtype, n, seed * 100 + static_cast<uint64_t>(r)));
  }
  return inputs;
}
size_t my_rank() { return static_cast<size_t>(world().rank()); }

void expect_all_reduce(Dtype dtype, int64_t n, Reduce reduce, uint64_t seed) {
  const std::vector<Bytes> inputs = inputs_of_all(dtype, n, seed);
  const Field x(dtype, inputs[my_rank()]);
  world().wait(world().all_reduce(x, reduce));
  x.expect(reduced(inputs, dtype, reduce), fmt::format("all_reduce of {}", n));
}

TEST(Collectives, AllReduceAddsInTreeOrder) {
  for (const int64_t n : kSizes) {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kI32}) {
      expect_all_reduce(dtype, n, Reduce::kSum, 1);
    }
  }
}

TEST(Collectives, AllReduceFindsTheMaximum) {
  for (const int64_t n : kSizes) {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kI32}) {
      expect_all_reduce(dtype, n, Reduce::kMax, 2);
    }
  }
}

TEST(Collectives, AMaximumWithANaNIsNaN) {
  for (int culprit = 0; culprit < world().size(); ++culprit) {
    float x[] = {static_cast<float>(world().rank()), -std::numeric_limits<float>::infinity()};
    if (world().rank() == culprit) x[0] = std::numeric_limits<float>::quiet_NaN();
    world().wait(world().all_reduce(ops::view(std::span(x, 2)), Reduce::kMax));
    EXPECT_NE(x[0], x[0]);
    EXPECT_EQ(-std::numeric_limits<float>::infinity(), x[1]);
  }
}

void expect_reduce_scatter(Dtype dtype, int64_t n, const std::vector<int64_t>& bounds,
                           uint64_t seed) {
  const std::vector<Bytes> inputs = inputs_of_all(dtype, n, seed);
  const Field x(dtype, inputs[my_rank()]);
  world().wait(world().reduce_scatter(x, bounds));
  const Bytes sum = reduced(inputs, dtype, Reduce::kSum);
  Bytes expected = inputs[my_rank()];
  const int64_t element = ops::size_bytes(dtype);
  const auto first = bounds[my_rank()] * element, end = bounds[my_rank() + 1] * element;
  std::copy(sum.begin() + first, sum.begin() + end, expected.begin() + first);
  x.expect(expected, fmt::format("reduce_scatter of {}", n));
}

TEST(Collectives, ReduceScatterAddsThisRanksPart) {
  uint64_t seed = 10;
  for (const int64_t n : kSizes) {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
      for (int repeat = 0; repeat < 3; ++repeat, ++seed) {
        expect_reduce_scatter(dtype, n, random_bounds(n, world().size(), seed), seed);
      }
    }
  }
}

// Parts of several pieces, of unequal numbers of them, and one rank that owns everything.
TEST(Collectives, ReduceScatterOfSeveralPieces) {
  const int64_t n = 1'900'003;
  const int size = world().size();
  expect_reduce_scatter(Dtype::kF32, n, random_bounds(n, size, 7), 7);
  expect_reduce_scatter(Dtype::kBf16, n, random_bounds(n, size, 8), 8);
  for (const int owner : {0, size - 1}) {
    std::vector<int64_t> bounds(static_cast<size_t>(size) + 1, n);
    std::fill(bounds.begin(), bounds.begin() + owner + 1, 0);
    expect_reduce_scatter(Dtype::kF32, n, bounds, 9);
  }
}

TEST(Collectives, AllGatherCollectsTheParts) {
  uint64_t seed = 100;
  for (const int64_t n : kSizes) {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kI32, Dtype::kU8}) {
      for (int repeat = 0; repeat < 3; ++repeat, ++seed) {
        const std::vector<int64_t> bounds = random_bounds(n, world().size(), seed);
        const std::vector<Bytes> inputs = inputs_of_all(dtype, n, seed);
        const Field x(dtype, inputs[my_rank()]);
        world().wait(world().all_gather(x, bounds));
        Bytes expected(inputs[0].size());
        for (size_t r = 0; r < inputs.size(); ++r) {
          const int64_t element = ops::size_bytes(dtype);
          std::copy(inputs[r].begin() + bounds[r] * element,
                    inputs[r].begin() + bounds[r + 1] * element,
                    expected.begin() + bounds[r] * element);
        }
        x.expect(expected, fmt::format("all_gather of {}", n));
      }
    }
  }
}

TEST(Collectives, BroadcastFromEveryRoot) {
  for (const int64_t n : kSizes) {
    for (int root = 0; root < world().size(); ++root) {
      const std::vector<Bytes> inputs = inputs_of_all(Dtype::kU8, n, 200);
      const Field x(Dtype::kU8, inputs[my_rank()]);
      world().wait(world().broadcast(x, root));
      x.expect(inputs[static_cast<size_t>(root)], fmt::format("broadcast of {}", n));
    }
  }
}

TEST(Collectives, AllToAllExchangesEqualParts) {
  const auto size = static_cast<int64_t>(world().size());
  for (const int64_t part : {0, 1, 3, 1000, 30001}) {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kU8}) {
      const std::vector<Bytes> inputs = inputs_of_all(dtype, part * size, 300);
      const Field in(dtype, inputs[my_rank()]), out(dtype, part * size);
      world().wait(world().all_to_all(out, in));
      const int64_t bytes = part * ops::size_bytes(dtype);
      Bytes expected;
      for (const Bytes& input : inputs) {
        const auto first = input.begin() + world().rank() * bytes;
        expected.insert(expected.end(), first, first + bytes);
      }
      out.expect(expected, fmt::format("all_to_all of {}", part));
      in.expect(inputs[my_rank()], "all_to_all: what was sent");
    }
  }
}

// Longer than one MPI message may be here (mpi_messages.cpp), by a part of another.
TEST(Collectives, TensorsOfSeveralMessages) {
  const int64_t n = (int64_t{64} << 20) + 12'345;
  const int size = world().size();
  Bytes pattern(static_cast<size_t>(n));
  for (size_t i = 0; i < pattern.size(); ++i)
    pattern[i] = static_cast<std::byte>(i * 2654435761 >> 13);
  const Field x(Dtype::kU8, world().rank() == size - 1 ? pattern : Bytes(pattern.size()));
  world().wait(world().broadcast(x, size - 1));
  x.expect(pattern, "broadcast");

  // The last rank has nearly all of it.
  std::vector<int64_t> bounds(static_cast<size_t>(size) + 1, n);
  for (int r = 0; r < size; ++r) bounds[static_cast<size_t>(r)] = r;
  const Field y(Dtype::kU8, Bytes(pattern.size()));
  auto* const bytes = static_cast<std::byte*>(static_cast<const Tensor&>(y).data);
  std::copy(pattern.begin() + bounds[my_rank()], pattern.begin() + bounds[my_rank() + 1],
            bytes + bounds[my_rank()]);
  world().wait(world().all_gather(y, bounds));
  y.expect(pattern, "all_gather");
}

TEST(Collectives, TextsReachEverybody) {
  const auto text_of = [](int rank) {
    return std::string(static_cast<size_t>(rank * 1000), static_cast<char>('a' + rank));
  };
  const std::vector<std::string> texts = all_gather_text(world(), text_of(world().rank()));
  EXPECT_EQ(static_cast<size_t>(world().size()), texts.size());
  for (size_t r = 0; r < texts.size(); ++r) EXPECT_EQ(text_of(static_cast<int>(r)), texts[r]);
  for (int root = 0; root < world().size(); ++root) {
    const std::string mine = fmt::format("of rank {}", world().rank());
    EXPECT_EQ(fmt::format("of rank {}", root), broadcast_text(world(), mine, root));
    EXPECT_EQ("", broadcast_text(world(), "", root));
  }
}

}  // namespace
}  // namespace qstep::parallel
