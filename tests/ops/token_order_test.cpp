#include "ops/token_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "tests/support/compare.h"
#include "tests/support/host_launch.h"

namespace qstep::test {
namespace {

// Sizes around a chunk of entries, tables of one, two and three digits; tokens of other ranks.
TEST(TokenOrder, IsThatOfAStableSort) {
  constexpr int64_t kFirst = 40;
  for (const int64_t n : {0, 1, 1023, 1024, 1025, 5000}) {
    for (const int64_t n_rows : {0, 1, 255, 256, 257, 70000}) {
      Random random(7);
      std::vector<int32_t> tokens;
      for (int64_t i = 0; i < n; ++i) {
        // Every third is one of few, as in text.
        const int64_t last = i % 3 == 0 ? std::min<int64_t>(n_rows, 3) : n_rows;
        tokens.push_back(static_cast<int32_t>(kFirst + random.integer(-2, last + 1)));
      }
      const auto row = [&](int64_t i) {
        const int64_t r = tokens[static_cast<size_t>(i)] - kFirst;
        return r >= 0 && r < n_rows ? r : n_rows;
      };
      std::vector<int64_t> expected(static_cast<size_t>(n));
      std::iota(expected.begin(), expected.end(), 0);
      std::stable_sort(expected.begin(), expected.end(),
                       [&](int64_t a, int64_t b) { return row(a) < row(b); });
      for_each_order([&](const HostLaunch& launch) {
        const uint64_t* const entries =
            ops::device::sort_tokens(launch, tokens.data(), n, kFirst, n_rows);
        for (int64_t i = 0; i < n; ++i) {
          const int64_t position = expected[static_cast<size_t>(i)];
          ASSERT_EQ(ops::device::entry_position(entries[i]), position) << n << " " << n_rows;
          ASSERT_EQ(ops::device::entry_row(entries[i]), row(position));
        }
      });
    }
  }
}

}  // namespace
}  // namespace qstep::test
