#include "data/prefetcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <vector>

#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

class PrefetcherTest : public testing::Test {
 protected:
  PrefetcherTest() {
    write_made_up_store(dir_ / "s.h5", {.train_tokens = 5000});
    store_ = std::make_unique<TokenStore>(TokenStore::open(dir_ / "s.h5"));
    loader_ = std::make_unique<Loader>(*store_, LoaderOptions{16, 2, 4, 3});
  }

  void expect_equal(const Batch& batch) const {
    std::vector<int32_t> tokens(loader_->batch_tokens()), targets(loader_->batch_tokens());
    loader_->batch(batch.step, batch.micro, tokens, targets);
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), batch.tokens.begin()));
    EXPECT_TRUE(std::equal(targets.begin(), targets.end(), batch.targets.begin()));
  }

  const TempDir dir_;
  std::unique_ptr<TokenStore> store_;
  std::unique_ptr<Loader> loader_;
};

TEST_F(PrefetcherTest, GivesTheLoadersBatchesInOrderFromAnyStep) {
  Prefetcher prefetcher(*loader_, {.start_step = 7, .micro_end = 4});
  int64_t step = 7, micro = 0;
  for (int i = 0; i < 100; ++i) {
    const Batch& batch = prefetcher.next();
    ASSERT_EQ(batch.step, step);
    ASSERT_EQ(batch.micro, micro);
    expect_equal(batch);
    if (++micro == 4) micro = 0, ++step;
  }
}

TEST_F(PrefetcherTest, ARankGetsItsOwnMicroBatches) {
  Prefetcher prefetcher(*loader_, {.micro_begin = 2, .micro_end = 4});
  for (int i = 0; i < 20; ++i) {
    const Batch& batch = prefetcher.next();
    EXPECT_EQ(batch.step, i / 2);
    EXPECT_EQ(batch.micro, 2 + i % 2);
    expect_equal(batch);
  }
}

TEST_F(PrefetcherTest, TellsWhenItReadEveryBatch) {
  std::mutex mutex;
  std::vector<BatchRead> heard;
  const auto begin = std::chrono::steady_clock::now();
  {
    Prefetcher prefetcher(
        *loader_,
        {.start_step = 3, .micro_begin = 1, .micro_end = 3, .on_read = [&](const BatchRead& read) {
           const std::lock_guard lock(mutex);
           heard.push_back(read);
         }});
    for (int i = 0; i < 10; ++i) prefetcher.next();
  }
  ASSERT_GE(heard.size(), 10u);  // it reads ahead
  auto last = begin;
  for (size_t i = 0; i < heard.size(); ++i) {
    EXPECT_EQ(static_cast<int64_t>(3 + i / 2), heard[i].step);
    EXPECT_EQ(static_cast<int64_t>(1 + i % 2), heard[i].micro);
    EXPECT_LE(last, heard[i].begin);
    EXPECT_LE(heard[i].begin, heard[i].end);
    last = heard[i].end;
  }
}

TEST_F(PrefetcherTest, WorksWithTheSmallestRing) {
  const Loader one(*store_, {16, 1, 1, 3});
  Prefetcher prefetcher(one, {.micro_end = 1, .steps_ahead = 1});
  for (int i = 0; i < 50; ++i) EXPECT_EQ(prefetcher.next().step, i);
}

TEST_F(PrefetcherTest, StopsWhileTheRingIsFullOrNothingWasTaken) {
  for (int i = 0; i < 20; ++i) Prefetcher(*loader_, {.micro_end = 4});
  Prefetcher prefetcher(*loader_, {.micro_end = 4});
  prefetcher.next();
}

TEST_F(PrefetcherTest, ImpossibleRangesAreRefused) {
  EXPECT_ERROR(Prefetcher(*loader_, {.micro_end = 5}), "prefetcher: expected");
  EXPECT_ERROR(Prefetcher(*loader_, {.micro_begin = 4, .micro_end = 4}), "prefetcher: expected");
  EXPECT_ERROR(Prefetcher(*loader_, {.micro_end = 0}), "prefetcher: expected");
}

// A damaged token in the middle of the store: batches before it arrive, then next() throws, always.
TEST_F(PrefetcherTest, AnErrorOfTheThreadArrivesInNext) {
  {
    Hdf5File file = Hdf5File::create(dir_ / "bad.h5");
    std::vector<uint16_t> tokens(1601, 1);
    tokens[800] = 300;
    const std::vector<uint64_t> doc_offsets = {0, 1601};
    for (const auto& [name, value] : {std::pair<const char*, uint64_t>{"format_version", 1},
                                      {"vocab_size", 257},
                                      {"eos_id", 256},
                                      {"num_tokens", 1601}}) {
      file.write_attribute("/", name, value);
    }
    file.write_attribute("/", "tokenizer", "bytes");
    file.write_attribute("/", "tokenizer_sha256", tokenizer_sha256("bytes", ""));
    file.write_attribute("/", "content_hash", std::string(32, '0'));
    file.write_attribute("/", "source", "");
    file.write_dataset("/tokens", Hdf5Type::kU16, tokens.size(), tokens.data());
    file.write_dataset("/doc_offsets", Hdf5Type::kU64, 2, doc_offsets.data());
    file.close();
  }
  const TokenStore bad = TokenStore::open(dir_ / "bad.h5");
  const Loader loader(bad, {16, 1, 1, 3});
  int64_t first_bad = 0;  // windows 49 and 50 hold token 800
  while (loader.window(first_bad, 0, 0) != 49 && loader.window(first_bad, 0, 0) != 50) ++first_bad;
  Prefetcher prefetcher(loader, {.micro_end = 1});
  for (int64_t i = 0; i < first_bad; ++i) EXPECT_EQ(prefetcher.next().step, i);
  EXPECT_ERROR(prefetcher.next(), "offset 800: expected a token below vocab_size 257, found 300");
  EXPECT_ERROR(prefetcher.next(), "offset 800");
}

}  // namespace
}  // namespace qstep::data
