#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

constexpr uint32_t kVocab = 50000;

class LoaderTest : public testing::Test {
 protected:
  // 1003 train tokens and T = 10: 100 windows, 2 tokens are left over.
  LoaderTest() {
    write_made_up_store(dir_ / "s.h5", {.vocab_size = kVocab,
                                        .train_tokens = 1003,
                                        .validation_tokens = 75,
                                        .document_tokens = 30});
    store_ = std::make_unique<TokenStore>(TokenStore::open(dir_ / "s.h5"));
  }

  const TempDir dir_;
  std::unique_ptr<TokenStore> store_;
};

struct Rows {
  explicit Rows(const Loader& loader)
      : tokens(loader.batch_tokens()), targets(loader.batch_tokens()) {}
  bool operator==(const Rows&) const = default;
  std::vector<int32_t> tokens, targets;
};

Rows batch(const Loader& loader, int64_t step, int64_t micro) {
  Rows rows(loader);
  loader.batch(step, micro, rows.tokens, rows.targets);
  return rows;
}

TEST_F(LoaderTest, RowsAreWindowsAndTargetsAreShifted) {
  const Loader loader(*store_, {.seq_len = 10, .micro_batch = 3, .micros_per_step = 2, .seed = 5});
  EXPECT_EQ(loader.windows(), 100);
  const Rows rows = batch(loader, 4, 1);
  for (int64_t b = 0; b < 3; ++b) {
    const int64_t first = loader.window(4, 1, b) * 10;
    for (int64_t t = 0; t < 10; ++t) {
      EXPECT_EQ(rows.tokens[b * 10 + t], int32_t(made_up_token(first + t, kVocab)));
      EXPECT_EQ(rows.targets[b * 10 + t], int32_t(made_up_token(first + t + 1, kVocab)));
    }
  }
}

// R6: 100 windows in batches of 3 x 2 do not divide; epoch borders fall inside batches.
TEST_F(LoaderTest, R06_EverySampleOncePerEpochAcrossBatchBorders) {
  const Loader loader(*store_, {.seq_len = 10, .micro_batch = 3, .micros_per_step = 2, .seed = 5});
  std::vector<int64_t> order;
  for (int64_t step = 0; step < 50; ++step) {
    for (int64_t micro = 0; micro < 2; ++micro) {
      for (int64_t b = 0; b < 3; ++b) order.push_back(loader.window(step, micro, b));
    }
  }
  ASSERT_EQ(order.size(), 300u);  // three epochs
  std::vector<std::vector<int64_t>> epochs;
  for (int e = 0; e < 3; ++e) {
    epochs.emplace_back(order.begin() + e * 100, order.begin() + (e + 1) * 100);
    std::vector<int64_t> sorted = epochs.back();
    std::sort(sorted.begin(), sorted.end());
    for (int64_t k = 0; k < 100; ++k) ASSERT_EQ(sorted[k], k) << "epoch " << e;
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

TEST_F(LoaderTest, R06_OrderDoesNotDependOnHowTheStepIsSplit) {
  const Loader two_by_three(*store_, {10, 2, 3, 9});
  const Loader one_by_six(*store_, {10, 1, 6, 9});
  for (int64_t step = 0; step < 40; ++step) {
    for (int64_t sample = 0; sample < 6; ++sample) {
      EXPECT_EQ(two_by_three.window(step, sample / 2, sample % 2),
                one_by_six.window(step, sample, 0));
    }
  }
}

TEST_F(LoaderTest, R06_BatchesAreAPureFunctionOfSeedStepAndMicro) {
  const Loader a(*store_, {10, 4, 2, 1}), b(*store_, {10, 4, 2, 1}), other(*store_, {10, 4, 2, 2});
  std::map<std::pair<int64_t, int64_t>, Rows> forward;
  for (int64_t step = 0; step < 20; ++step) {
    for (int64_t micro = 0; micro < 2; ++micro) {
      forward.emplace(std::pair(step, micro), batch(a, step, micro));
    }
  }
  for (auto it = forward.rbegin(); it != forward.rend(); ++it) {
    EXPECT_EQ(batch(b, it->first.first, it->first.second), it->second);
  }
  EXPECT_NE(batch(other, 0, 0), forward.at({0, 0}));
  EXPECT_EQ(batch(a, 1'000'000'000'000, 1), batch(b, 1'000'000'000'000, 1));
}

TEST_F(LoaderTest, ValidationIsSequential) {
  const Loader loader(*store_, {10, 3, 1, 1});
  ASSERT_EQ(loader.validation_batches(), 2);  // of 3 from (75 - 1) / 10 = 7 windows
  Rows rows(loader);
  for (int64_t i = 0; i < 2; ++i) {
    loader.validation_batch(i, rows.tokens, rows.targets);
    for (int64_t b = 0; b < 3; ++b) {
      EXPECT_EQ(rows.tokens[b * 10], int32_t(made_up_token((i * 3 + b) * 10, kVocab)));
      EXPECT_EQ(rows.targets[b * 10 + 9], int32_t(made_up_token((i * 3 + b) * 10 + 10, kVocab)));
    }
  }
  EXPECT_ERROR(loader.validation_batch(2, rows.tokens, rows.targets), "2 validation batches");
}

TEST_F(LoaderTest, AShortValidationPartFillsOneBatch) {
  const Loader loader(*store_, {30, 5, 1, 1});
  ASSERT_EQ(loader.validation_batches(), 1);
  Rows rows(loader);
  loader.validation_batch(0, rows.tokens, rows.targets);
  EXPECT_EQ(rows.tokens[2 * 30], rows.tokens[0]);
  EXPECT_EQ(rows.tokens[3 * 30], rows.tokens[1 * 30]);
  EXPECT_EQ(Loader(*store_, {80, 5, 1, 1}).validation_batches(), 0);
}

TEST_F(LoaderTest, ImpossibleRequestsAreRefused) {
  EXPECT_ERROR(Loader(*store_, {1003, 1, 1, 1}),
               "expected at least seq_len + 1 = 1004 train tokens, found 1003");
  EXPECT_EQ(Loader(*store_, {1002, 1, 1, 1}).windows(), 1);
  EXPECT_ERROR(Loader(*store_, {0, 1, 1, 1}), "at least 1");
  const Loader loader(*store_, {10, 1, 2, 1});
  EXPECT_ERROR(loader.window(0, 2, 0), "micro in [0, 2), found 0 and 2");
  EXPECT_ERROR(loader.window(-1, 0, 0), "step >= 0");
  std::vector<int32_t> small(9);
  EXPECT_ERROR(loader.batch(0, 0, small, small), "expected room for 10 tokens");
}

}  // namespace
}  // namespace qstep::data
