// A team: the threads that work on one row (or chunk, or column) together. On a GPU a thread block,
// a warp or a part of one (cuda_launch.cuh); on the host one thread that plays them all, so that a
// CPU test runs the very indexing and arithmetic of a kernel. A kernel is a function object
//
//   template <class Team>
//   QSTEP_HD void operator()(const Team& team, float* shared, int64_t index) const;
//
// called once per team, `shared` being memory that the team has for itself. Outside of each and
// sum every thread does the same, so that only what all of them may compute belongs there: values
// that all know, and writes by the leader.
//
// Sums have one order, on the device and on the host: thread t adds the terms t, t + size, ... one
// after the other; then the lanes of a warp are folded onto each other by halves (16, 8, 4, 2, 1);
// then the warps by halves. It depends on the size of the team alone, never on the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "precision/hd.h"

namespace qstep::ops::device {

inline constexpr int kWarp = 32;
inline constexpr int kMaxTeam = 1024;

// A power of two, at most `largest`: enough threads that each has at most `turns` of n items, if
// there are as many.
constexpr int team_size(int64_t n, int turns, int largest = 512) {
  int size = 1;
  while (size < largest && static_cast<int64_t>(size) * turns < n) size *= 2;
  return size;
}

// Threads of a block: one team of more than a warp, or as many smaller ones as fill 256.
constexpr int block_threads(int size) { return size > kWarp ? size : 256; }

// Shared memory of a block: what an RTX has, and so that two blocks fit on a data-center GPU.
inline constexpr int64_t kMaxSharedFloats = 24 << 10;

// Several sums at once.
template <int kCount>
struct Sums {
  float v[kCount];
  QSTEP_HD friend Sums operator+(const Sums& a, const Sums& b) {
    Sums r;
    QSTEP_UNROLL(8)
    for (int i = 0; i < kCount; ++i) r.v[i] = a.v[i] + b.v[i];
    return r;
  }
};

// The larger; the number where one of the two is a NaN.
QSTEP_HD inline float larger(float a, float b) { return a > b || b != b ? a : b; }

// What every team has, from its `reduce` and its size.
template <class Derived>
class TeamBase {
 public:
  // The sum of f(i) for i in [0, n): float, double or Sums; the same in every thread.
  template <class F>
  QSTEP_HD auto sum(int64_t n, const F& f) const {
    using V = decltype(f(int64_t{}));
    return derived().reduce(
        n, V{}, [&](V& s, int64_t i) { s = s + f(i); }, [](V a, V b) { return a + b; });
  }
  // The largest f(i), NaNs left out; -infinity where there is none.
  template <class F>
  QSTEP_HD float max(int64_t n, const F& f) const {
    return derived().reduce(
        n, -__builtin_huge_valf(), [&](float& m, int64_t i) { m = larger(f(i), m); },
        [](float a, float b) { return larger(a, b); });
  }

 private:
  QSTEP_HD const Derived& derived() const { return static_cast<const Derived&>(*this); }
};

// The host's: thread after thread, from the first to the last or the other way round. A kernel that
// gives the same bits either way does not depend on which thread comes first.
class SerialTeam : public TeamBase<SerialTeam> {
 public:
  explicit SerialTeam(int size, bool backwards = false) : size_(size), backwards_(backwards) {}

  bool leader() const { return true; }
  void sync() const {}

  // f(i) for i in [0, n), each by one thread: thread i % size.
  template <class F>
  void each(int64_t n, const F& f) const {
    for_each_thread([&](int thread) {
      for (int64_t i = thread; i < n; i += size_) f(i);
    });
  }

  // From `start` in every thread: add(value, i) changes it by item i, join(a, b) = join(b, a)
  // merges two threads' values. Threads wait for each other: what they wrote before is seen after.
  template <class V, class Add, class Join>
  V reduce(int64_t n, V start, const Add& add, const Join& join) const {
    std::vector<V> x(static_cast<size_t>(size_), start);
    for_each_thread([&](int thread) {
      for (int64_t i = thread; i < n; i += size_) add(x[static_cast<size_t>(thread)], i);
    });
    const int lanes = size_ < kWarp ? size_ : kWarp;
    // x[k stride] for k in [0, 2 half) become their fold at k = 0, for every run of 2 half.
    const auto fold = [&](int first, int half, int stride) {
      for (int k = 0; k < half; ++k) {
        V& to = x[static_cast<size_t>(first + k * stride)];
        to = join(to, x[static_cast<size_t>(first + (k + half) * stride)]);
      }
    };
    for (int half = lanes / 2; half > 0; half /= 2) {
      for (int warp = 0; warp < size_; warp += lanes) fold(warp, half, 1);
    }
    for (int half = size_ / lanes / 2; half > 0; half /= 2) fold(0, half, lanes);
    return x[0];
  }

 private:
  template <class F>
  void for_each_thread(const F& f) const {
    for (int t = 0; t < size_; ++t) f(backwards_ ? size_ - 1 - t : t);
  }

  int size_;
  bool backwards_;
};

}  // namespace qstep::ops::device
