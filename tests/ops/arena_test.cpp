#include "ops/arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace qstep::ops {
namespace {

Buffer allocate(int64_t bytes) {
  return Buffer(std::aligned_alloc(64, static_cast<size_t>(bytes)), bytes, std::free);
}

struct Layout {
  Tensor weights, scratch1, scratch2, logits;
};

// A layout as layers make one: two owners, scratch that is given back twice.
Layout lay_out(Arena& arena) {
  Layout l;
  l.weights = arena.take("weights", Dtype::kBf16, 3, 5);  // 30 bytes: one line of 64
  {
    const Arena::Scope scope(arena);
    l.scratch1 = arena.take("scratch", Dtype::kF32, 4, 100);  // 1600 bytes
  }
  {
    const Arena::Scope scope(arena);
    l.scratch2 = arena.take("scratch", Dtype::kF32, 2, 100);  // 800 bytes: 832
    l.logits = arena.take("logits", Dtype::kI32, 1, 16);      // 64 bytes
  }
  return l;
}

TEST(Arena, PlacesWhatItMeasured) {
  Arena measure;
  EXPECT_TRUE(measure.measuring());
  EXPECT_EQ(lay_out(measure).weights.data, nullptr);
  EXPECT_EQ(measure.peak_bytes(), 64 + 1600);

  const Buffer buffer = allocate(measure.peak_bytes());
  Arena place(buffer);
  EXPECT_FALSE(place.measuring());
  const Layout l = lay_out(place);
  EXPECT_EQ(place.peak_bytes(), measure.peak_bytes());
  EXPECT_EQ(place.bytes_by_owner(), measure.bytes_by_owner());

  const auto offset = [&](const Tensor& x) {
    return static_cast<char*>(x.data) - static_cast<char*>(buffer.data());
  };
  EXPECT_EQ(offset(l.weights), 0);
  EXPECT_EQ(offset(l.scratch1), 64);
  EXPECT_EQ(offset(l.scratch2), 64);  // the same memory: scratch1's scope has ended
  EXPECT_EQ(offset(l.logits), 64 + 832);
  EXPECT_EQ(l.weights.rows, 3);
  EXPECT_EQ(l.weights.cols, 5);
  EXPECT_TRUE(l.weights.contiguous());
}

TEST(Arena, CountsTheMostEachOwnerHeldAtOnce) {
  Arena arena;
  lay_out(arena);
  const std::map<std::string, int64_t, std::less<>> expected = {
      {"weights", 64}, {"scratch", 1600}, {"logits", 64}};
  EXPECT_EQ(arena.bytes_by_owner(), expected);
}

TEST(Arena, ScopesNest) {
  Arena arena;
  {
    const Arena::Scope outer(arena);
    arena.take("a", Dtype::kF32, 1, 16);
    {
      const Arena::Scope inner(arena);
      arena.take("a", Dtype::kF32, 1, 16);
      arena.take("b", Dtype::kF32, 1, 16);
    }
    arena.take("b", Dtype::kF32, 1, 32);
  }
  arena.take("c", Dtype::kF32, 1, 16);
  EXPECT_EQ(arena.peak_bytes(), 3 * 64);
  EXPECT_EQ(arena.bytes_by_owner().find("a")->second, 2 * 64);
  EXPECT_EQ(arena.bytes_by_owner().find("b")->second, 2 * 64);
  EXPECT_EQ(arena.bytes_by_owner().find("c")->second, 64);
}

TEST(Arena, RefusesToPlaceMoreThanWasMeasured) {
  const Buffer buffer = allocate(128);
  Arena arena(buffer);
  arena.take("a", Dtype::kF32, 1, 16);
  arena.take("a", Dtype::kF32, 1, 16);
  EXPECT_THROW(arena.take("a", Dtype::kF32, 1, 1), Error);
}

// 1e8 sequences in a micro-batch: rows and columns fit, their product does not.
TEST(Arena, RefusesMoreThanCanBeCounted) {
  constexpr int64_t kHuge = int64_t{1} << 32;
  const auto refused = [](Arena& arena, int64_t rows, int64_t cols) {
    try {
      arena.take("a", Dtype::kF32, rows, cols);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("more memory than can be counted"),
                std::string::npos);
      return error.code() == ExitCode::kConfig;
    }
    return false;
  };
  Arena arena;
  EXPECT_TRUE(refused(arena, kHuge, kHuge));             // elements
  EXPECT_TRUE(refused(arena, kHuge, int64_t{1} << 30));  // bytes
  EXPECT_EQ(arena.peak_bytes(), 0);
  arena.take("a", Dtype::kF32, kHuge, int64_t{1} << 21);  // 2^55 bytes
  arena.take("a", Dtype::kF32, kHuge, int64_t{1} << 21);
  EXPECT_TRUE(refused(arena, 1, 1));  // their sum
  EXPECT_EQ(arena.peak_bytes(), int64_t{1} << 56);
}

TEST(Arena, AlignsEveryTensorToACacheLine) {
  const Buffer buffer = allocate(4096);
  Arena arena(buffer);
  for (const int64_t cols : {1, 3, 16, 17, 33}) {
    const Tensor x = arena.take("a", Dtype::kBf16, 1, cols);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(x.data) % 64, 0u);
  }
}

TEST(Buffer, FreesOnceAndMoves) {
  static int n_freed = 0;
  int memory = 0;
  {
    Buffer a(&memory, 4, [](void*) { ++n_freed; });
    Buffer b(std::move(a));
    EXPECT_EQ(b.data(), &memory);
    EXPECT_EQ(a.data(), nullptr);  // NOLINT: what a moved-from buffer promises
    Buffer c;
    c = std::move(b);
    EXPECT_EQ(c.bytes(), 4);
    EXPECT_EQ(n_freed, 0);
  }
  EXPECT_EQ(n_freed, 1);
}

}  // namespace
}  // namespace qstep::ops
