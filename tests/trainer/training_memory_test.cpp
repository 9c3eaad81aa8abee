// The table of memory per rank against what ZeRO stage 1 and tensor and sequence parallelism
// promise, as formulas of the model's dimensions.
#include <gtest/gtest.h>

#include <bit>

#include "trainer/step/trainer.h"

namespace qstep::trainer {
namespace {

constexpr int64_t kBatch = 4, kSeqLen = 1024, kTokens = kBatch * kSeqLen, kMicros = 8;

struct Layout {
  std::string preset;
  int tensor = 1, data = 1;
  int size() const { return tensor * data; }
};

// In BF16, 8 micro-batches of 4 x 1024 tokens.
Config config_of(const Layout& layout) {
  Config config =
      load_config("", std::vector<std::string>{"model.preset=" + layout.preset,
                                               "train.seq_len=1024", "train.micro_batch=4",
                                               "train.global_batch=32", "precision.recipe=bf16"})
          .config;
  config.parallel.tensor = layout.tensor;
  return config;
}

int64_t bytes_of(const std::vector<MemoryRow>& rows, const std::string& owner) {
  for (const MemoryRow& row : rows) {
    if (row.owner == owner) return row.bytes;
  }
  return 0;
}

template <class F>
void for_each_layout(F&& f) {
  for (const char* preset : {"gpt2-124m", "llama-1b", "qwen3-0.6b"}) {
    for (const int tensor : {1, 2, 4}) {
      for (const int data : {1, 2, 8}) {
        SCOPED_TRACE(testing::Message() << preset << ", tensor " << tensor << " x data " << data);
        f(Layout{preset, tensor, data});
      }
    }
  }
}

// Elements that tensor parallelism cuts, and those that every rank of a group has.
struct Elements {
  int64_t cut = 0, whole = 0;
  int64_t local(int64_t tensor) const { return cut / tensor + whole; }
};
Elements elements_of(const ModelConfig& m) {
  const int64_t C = m.width, L = m.n_layers, heads = m.n_heads * m.head_dim,
                keys = m.n_kv_heads * m.head_dim, norm = m.norm == NormKind::kLayer ? 2 * C : C;
  const int64_t up = m.activation == ops::Activation::kSwiglu ? 2 * m.ffn_width : m.ffn_width;
  const int64_t vocab = (m.vocab_size + 127) / 128 * 128;
  Elements e;
  e.cut = (m.tied_head ? 1 : 2) * vocab * C + L * C * (heads + 2 * keys + heads + up + m.ffn_width);
  e.whole = (2 * L + 1) * norm;
  if (m.position == PositionKind::kLearned) e.whole += m.max_seq_len * C;
  if (m.qk_norm) e.whole += 2 * L * m.head_dim;
  if (m.bias) {
    e.cut += L * (heads + 2 * keys + up);
    e.whole += 2 * L * C;
  }
  return e;
}

// What alignment may add: less than kAlignElements behind each weight, of which a block has at most
// 14 and the rest of the model 5, and less than a unit behind what is cut and what is not of each
// bucket.
int64_t padding_of(const ModelConfig& m) {
  return (14 * m.n_layers + 5) * kAlignElements + 2 * n_buckets(m) * kShardUnit;
}

// P local elements on D data-parallel ranks: 2 P bytes of BF16 weights, 4 P of FP32 gradients in
// each of floor(log2(G / D)) + 1 buffers, 4 P / D of master weights and 8 P / D of moments.
TEST(TrainingMemory, ParametersShrinkWithBothSidesOfTheMesh) {
  for_each_layout([](const Layout& layout) {
    const Config config = config_of(layout);
    const int64_t P = elements_of(config.model).local(layout.tensor);
    const int64_t padding = padding_of(config.model);
    EXPECT_LT(padding, P / 100);                                  // so that nothing can hide in it
    const int64_t bounds = n_buckets(config.model) * kShardUnit;  // parts are whole units
    const auto n_buffers = std::bit_width(static_cast<uint64_t>(kMicros / layout.data));
    for (int rank = 0; rank < layout.size(); ++rank) {
      const std::vector<MemoryRow> rows = training_memory(config, layout.size(), rank);
      const auto within = [&](const char* owner, int64_t each, int64_t low, int64_t high) {
        EXPECT_LE(each * low, bytes_of(rows, owner)) << owner << " of rank " << rank;
        EXPECT_GE(each * high, bytes_of(rows, owner)) << owner << " of rank " << rank;
      };
      within("weights", 2, P, P + padding);
      within("gradients", 4 * n_buffers, P, P + padding);
      within("master weights", 4, P / layout.data - bounds, (P + padding) / layout.data + bounds);
      within("optimizer state", 8, P / layout.data - bounds, (P + padding) / layout.data + bounds);
    }
  });
}

// The data-parallel ranks of one tensor rank own each element once.
TEST(TrainingMemory, PartsAddUp) {
  for_each_layout([](const Layout& layout) {
    const Config config = config_of(layout);
    for (int t = 0; t < layout.tensor; ++t) {
      int64_t master = 0;
      std::vector<MemoryRow> rows;
      for (int d = 0; d < layout.data; ++d) {
        rows = training_memory(config, layout.size(), d * layout.tensor + t);
        master += bytes_of(rows, "master weights");
      }
      EXPECT_EQ(2 * bytes_of(rows, "weights"), master);
    }
  });
}

// Sequence parallel: the residual stream, which the norms read, and their statistics [2, N/t];
// whole are what a column-parallel layer reads and a row-parallel one writes; the rest is of own
// features.
TEST(TrainingMemory, ActivationsAreThoseOfOwnRowsAndFeatures) {
  for_each_layout([](const Layout& layout) {
    const Config config = config_of(layout);
    const ModelConfig& m = config.model;
    const int64_t t = layout.tensor, C = m.width;
    const int64_t qkv = (m.n_heads + 2 * m.n_kv_heads) * m.head_dim;
    const int64_t up = m.activation == ops::Activation::kSwiglu ? 2 * m.ffn_width : m.ffn_width;
    // Per token, in BF16 and in FP32.
    int64_t features = (qkv + m.n_heads * m.head_dim + up + m.ffn_width) / t;
    int64_t factors = m.n_heads / t;  // of attention
    if (m.qk_norm) {
      features += qkv / t;
      factors += (m.n_heads + m.n_kv_heads) / t;
    }
    const int64_t block = 2 * (2 * C / t + 2 * C + features) + 4 * (4 / t + factors);
    const int64_t ends = 2 * (2 * C + C / t + C) + 8 / t;  // embedding, delta, final norm
    const int64_t gradients = 2 * (2 * C + (qkv + m.n_heads * m.head_dim + up + m.ffn_width) / t);
    for (const int rank : {0, layout.size() - 1}) {
      const std::vector<MemoryRow> rows = training_memory(config, layout.size(), rank);
      EXPECT_EQ(kTokens * (m.n_layers * block + ends), bytes_of(rows, "activations"));
      EXPECT_EQ(kTokens * gradients, bytes_of(rows, "activation gradients"));
    }
  });
}

// Logits of own tokens, in chunks; of a shared head also three numbers per row and rank, and lse.
TEST(TrainingMemory, LogitsAreThoseOfOwnTokens) {
  for_each_layout([](const Layout& layout) {
    const Config config = config_of(layout);
    const int64_t t = layout.tensor, columns = (config.model.vocab_size + 127) / 128 * 128 / t;
    const int64_t row = 2 * columns + (t == 1 ? 0 : 4 * (3 * t + 1));
    const int64_t bytes = bytes_of(training_memory(config, layout.size(), 0), "logits");
    EXPECT_EQ(0, bytes % row);
    EXPECT_LE(1, bytes / row);
    EXPECT_GE(kTokens, bytes / row);
  });
}

}  // namespace
}  // namespace qstep::trainer
