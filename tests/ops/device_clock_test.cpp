// Times of a device on the host's clock, and bytes on their way to it.
#include "ops/device_clock.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <vector>

#include "ops/cuda/staging.h"
#include "tests/support/compare.h"

namespace qstep::test {
namespace {

// Handed over at 1000, 1010, ... with a latency of 5 and more: the quickest decides.
TEST(PlaceOnHostClock, TheQuickestHandOverTakesNoTime) {
  const std::array<int64_t, 3> handed_over{1000, 1010, 1020};
  std::array<int64_t, 3> times{7 + 1012, 7 + 1015, 7 + 1400};
  ops::place_on_host_clock(times, handed_over);
  EXPECT_EQ((std::array<int64_t, 3>{1007, 1010, 1395}), times);
  ops::place_on_host_clock({}, {});
}

TEST(PlaceOnHostClock, NothingIsAheadOfItsHandOverAndDistancesStay) {
  Random random(881);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> handed_over, times;
    int64_t host = random.integer(-1000, 1000), device = random.integer(-100000, 100000);
    for (int64_t n = random.integer(1, 40); n > 0; --n) {
      handed_over.push_back(host += random.integer(0, 50));
      times.push_back(device += random.integer(0, 50));
    }
    std::vector<int64_t> placed = times;
    ops::place_on_host_clock(placed, handed_over);
    int64_t least = placed[0] - handed_over[0];
    for (size_t i = 0; i < placed.size(); ++i) {
      least = std::min(least, placed[i] - handed_over[i]);
      EXPECT_EQ(times[i] - times[0], placed[i] - placed[0]);
    }
    EXPECT_EQ(0, least);
  }
}

// A device that fetches what it was told to only when somebody waits for it.
struct LazyDevice {
  struct Copy {
    void* to;
    const char* from;
    int64_t bytes;
  };
  std::vector<Copy> pending;
  std::array<size_t, 2> recorded{};  // how many copies were pending, per half
  int n_waits = 0;                   // for copies that were not done

  void fetch(size_t n) {
    for (size_t i = 0; i < n; ++i) {
      std::memcpy(pending[i].to, pending[i].from, static_cast<size_t>(pending[i].bytes));
    }
    pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(n));
    for (size_t& r : recorded) r -= std::min(r, n);
  }
};

struct LazyCopies {
  LazyDevice* device;
  void copy(void* to, const char* from, int64_t bytes) const {
    device->pending.push_back({to, from, bytes});
  }
  void record(int half) const {
    device->recorded[static_cast<size_t>(half)] = device->pending.size();
  }
  void wait(int half) const {
    const size_t n = device->recorded[static_cast<size_t>(half)];
    if (n == 0) return;
    ++device->n_waits;
    device->fetch(n);
  }
};

TEST(Staging, ArrivesWhateverBecomesOfTheSource) {
  constexpr int64_t kHalf = 100;
  Random random(882);
  for (int round = 0; round < 100; ++round) {
    std::vector<char> memory(2 * kHalf);
    LazyDevice device;
    ops::Staging<LazyCopies> staging(memory.data(), kHalf, {&device});
    std::vector<std::vector<char>> sent, received;
    for (int i = 0; i < 30; ++i) {
      sent.emplace_back(static_cast<size_t>(random.integer(0, 350)));
      for (char& c : sent.back()) c = static_cast<char>(random.integer(-128, 127));
      received.emplace_back(sent.back().size());
    }
    for (size_t i = 0; i < sent.size(); ++i) {
      std::vector<char> source = sent[i];
      staging.upload(received[i].data(), source.data(), static_cast<int64_t>(source.size()));
      std::fill(source.begin(), source.end(), 'x');
      if (random.integer(0, 9) == 0) device.fetch(device.pending.size());
    }
    device.fetch(device.pending.size());
    EXPECT_EQ(sent, received);
  }
}

TEST(Staging, WaitsOnlyWhereMoreThanHalfIsOnItsWay) {
  constexpr int64_t kHalf = 64;
  std::vector<char> memory(2 * kHalf), source(16), target(16);
  LazyDevice device;
  ops::Staging<LazyCopies> staging(memory.data(), kHalf, {&device});
  for (int step = 0; step < 20; ++step) {
    for (int i = 0; i < 4; ++i) staging.upload(target.data(), source.data(), 16);
    EXPECT_EQ(0, device.n_waits);
    device.fetch(device.pending.size());  // the end of a step
  }
  for (int i = 0; i < 9; ++i) staging.upload(target.data(), source.data(), 16);
  EXPECT_EQ(1, device.n_waits);
}

}  // namespace
}  // namespace qstep::test
