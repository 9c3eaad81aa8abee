// Parts of weights on the ranks of a tensor group, against features followed one by one.
#include "trainer/model/weight_split.h"

#include <gtest/gtest.h>

#include "tests/trainer/split_testing.h"

namespace qstep::trainer {

bool operator==(const LocalBlock& a, const LocalBlock& b) {
  return a.first_row == b.first_row && a.first_col == b.first_col && a.rows == b.rows &&
         a.cols == b.cols && a.first == b.first;
}

void PrintTo(const LocalBlock& b, std::ostream* out) {
  *out << fmt::format("[{}, {}] at ({}, {}), from element {}", b.rows, b.cols, b.first_row,
                      b.first_col, b.first);
}

namespace testing {
namespace {

// 4 heads of 3 on 2 heads of keys and values; 5 features of the MLP a rank.
ModelConfig grouped_queries() {
  ModelConfig m;
  m.vocab_size = 100;  // 128 rows
  m.n_layers = 1;
  m.width = 7;
  m.n_heads = 4;
  m.n_kv_heads = 2;
  m.head_dim = 3;
  m.ffn_width = 10;
  m.max_seq_len = 9;
  m.position = PositionKind::kLearned;
  m.bias = true;
  m.qk_norm = true;
  return m;
}

WeightSpec spec_of(const ModelConfig& model, const std::string& name) {
  for (const WeightSpec& spec : weight_list(model)) {
    if (spec.name == name) return spec;
  }
  throw std::runtime_error("no weight " + name);
}

TEST(WeightSplit, SecondOfTwoRanks) {
  using Blocks = std::vector<LocalBlock>;
  const auto blocks = [](const std::string& name) {
    return local_blocks(spec_of(grouped_queries(), name), {2, 1});
  };
  // Query heads 2 and 3, key head 1, value head 1.
  EXPECT_EQ((Blocks{{6, 0, 6, 7, 0}, {15, 0, 3, 7, 42}, {21, 0, 3, 7, 63}}),
            blocks("blocks.0.qkv.weight"));
  EXPECT_EQ((Blocks{{0, 6, 1, 6, 0}, {0, 15, 1, 3, 6}, {0, 21, 1, 3, 9}}),
            blocks("blocks.0.qkv.bias"));
  EXPECT_EQ((Blocks{{0, 6, 7, 6, 0}}), blocks("blocks.0.attn_out.weight"));
  // Gate, up.
  EXPECT_EQ((Blocks{{5, 0, 5, 7, 0}, {15, 0, 5, 7, 35}}), blocks("blocks.0.up.weight"));
  EXPECT_EQ((Blocks{{0, 5, 1, 5, 0}, {0, 15, 1, 5, 5}}), blocks("blocks.0.up.bias"));
  EXPECT_EQ((Blocks{{0, 5, 7, 5, 0}}), blocks("blocks.0.down.weight"));
  EXPECT_EQ((Blocks{{64, 0, 64, 7, 0}}), blocks("wte.weight"));
  EXPECT_EQ((Blocks{{64, 0, 64, 7, 0}}), blocks("head.weight"));
  // Held by all.
  EXPECT_EQ((Blocks{{0, 0, 9, 7, 0}}), blocks("wpe.weight"));
  EXPECT_EQ((Blocks{{0, 0, 1, 7, 0}}), blocks("blocks.0.attn_out.bias"));
  EXPECT_EQ((Blocks{{0, 0, 1, 7, 0}}), blocks("blocks.0.down.bias"));
  EXPECT_EQ((Blocks{{0, 0, 1, 3, 0}}), blocks("blocks.0.k_norm.weight"));
}

TEST(WeightSplit, OneRankHasOneBlock) {
  for (const WeightSpec& spec : weight_list(grouped_queries())) {
    EXPECT_EQ((std::vector<LocalBlock>{{0, 0, spec.rows, spec.cols, 0}}),
              local_blocks(spec, {1, 0}));
  }
}

// Every block, read row by row, is what the rank's part has from `first` on; the blocks of all
// ranks are the weight.
TEST(WeightSplit, BlocksAreThePartsAndMakeUpTheWeight) {
  for (const auto& [name, model] : split_cases()) {
    for (const int t : tensor_sizes(model)) {
      for (const WeightSpec& spec : weight_list(model)) {
        SCOPED_TRACE(fmt::format("{} {} of {}", name, spec.name, t));
        const LocalShape local = local_shape(spec, t);
        std::vector<Slice> held;
        for (int rank = 0; rank < t; ++rank) {
          int64_t end = 0;
          for (const LocalBlock& b : local_blocks(spec, {t, rank})) {
            ASSERT_EQ(end, b.first);
            for (int64_t i = 0; i < b.size(); ++i) {
              const int64_t at = b.first + i;
              const Element found =
                  whole_element(spec, {t, rank}, {at / local.cols, at % local.cols});
              ASSERT_EQ(found.row, b.first_row + i / b.cols);
              ASSERT_EQ(found.col, b.first_col + i % b.cols);
            }
            end += b.size();
            if (spec.split != TensorSplit::kNone || rank == 0) {
              held.push_back(block(spec.rows, spec.cols, b.first_row, b.first_col, b.rows, b.cols));
            }
          }
          ASSERT_EQ(local.rows * local.cols, end);
        }
        EXPECT_FALSE(cover_problem(held, spec.rows, spec.cols).has_value());
      }
    }
  }
}

TEST(WeightSplit, SectionsThatDoNotDivideAreRefused) {
  const WeightSpec qkv = spec_of(grouped_queries(), "blocks.0.qkv.weight");  // 12, 6 and 6 rows
  EXPECT_THROW(local_shape(qkv, 4), ops::Error);  // 24 rows divide, 6 do not
  EXPECT_THROW(local_blocks(qkv, {4, 0}), ops::Error);
  WeightSpec down = spec_of(grouped_queries(), "blocks.0.down.weight");
  EXPECT_NO_THROW(local_blocks(down, {2, 0}));
  down.sections = {4, 6};
  EXPECT_THROW(local_blocks(down, {2, 0}), ops::Error);  // would not be runs
  down.sections = {8};
  EXPECT_THROW(local_blocks(down, {2, 0}), ops::Error);  // of 10 columns
}

}  // namespace
}  // namespace testing
}  // namespace qstep::trainer
