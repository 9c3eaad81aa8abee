// A GPT-2 in llm.c's files, trained by qstep with llm.c's settings, against the FP64 reference:
// loss of every step, every gradient of the first, every weight after the last.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/compare.h"
#include "tests/support/reference_model.h"
#include "tests/trainer/checkpoint_testing.h"

namespace qstep::trainer::testing {
namespace {

constexpr int64_t kBatch = 2, kSeqLen = 8, kSteps = 10;
// train_gpt2.c: AdamW(1e-4, 0.9, 0.999, eps 1e-8, no decay), no clipping, constant rate, in FP32.
constexpr float kLr = 1e-4f, kBeta1 = 0.9f, kBeta2 = 0.999f, kEps = 1e-8f;

ModelConfig small_gpt2() {
  ModelConfig m;
  m.vocab_size = 50257;  // what llm.c's token files imply
  m.n_layers = 2;
  m.width = 8;
  m.n_heads = 2;
  m.n_kv_heads = 2;
  m.head_dim = 4;
  m.ffn_width = 32;
  m.max_seq_len = 12;
  m.norm = NormKind::kLayer;
  m.position = PositionKind::kLearned;
  m.activation = ops::Activation::kGelu;
  m.bias = true;
  m.tied_head = true;
  return m;
}

test::Weights random_weights(const ModelConfig& model) {
  test::Random random(80);
  test::Weights weights = test::zero_weights(model);
  for (auto& [name, weight] : weights) {
    const double centre = name.find("norm") != std::string::npos && name.ends_with(".weight");
    for (double& x : weight.v) {
      x = static_cast<double>(static_cast<float>(centre + random.uniform(-0.3, 0.3)));
    }
  }
  return weights;
}

void write_words(std::ofstream& out, const std::vector<int32_t>& header) {
  std::vector<int32_t> words(256, 0);
  std::copy(header.begin(), header.end(), words.begin());
  out.write(reinterpret_cast<const char*>(words.data()), 1024);
}

// The layout that llm.c's write_model has: 16 tensors, the layers of each behind one another.
void write_model(const std::string& path, const ModelConfig& m, const test::Weights& weights) {
  std::ofstream out(path, std::ios::binary);
  const auto padded_vocab = static_cast<int32_t>((m.vocab_size + 127) / 128 * 128);
  write_words(out, {20240326, 3, static_cast<int32_t>(m.max_seq_len),
                    static_cast<int32_t>(m.vocab_size), static_cast<int32_t>(m.n_layers),
                    static_cast<int32_t>(m.n_heads), static_cast<int32_t>(m.width), padded_vocab});
  const auto put = [&](const std::string& name) {
    for (const double x : weights.at(name).v) {
      const auto value = static_cast<float>(x);
      out.write(reinterpret_cast<const char*>(&value), 4);
    }
  };
  put("wte.weight");
  const std::vector<float> padding(static_cast<size_t>((padded_vocab - m.vocab_size) * m.width), 0);
  out.write(reinterpret_cast<const char*>(padding.data()),
            static_cast<std::streamsize>(padding.size() * 4));
  put("wpe.weight");
  for (const char* layer :
       {"norm1.weight", "norm1.bias", "qkv.weight", "qkv.bias", "attn_out.weight", "attn_out.bias",
        "norm2.weight", "norm2.bias", "up.weight", "up.bias", "down.weight", "down.bias"}) {
    for (int64_t l = 0; l < m.n_layers; ++l) put("blocks." + std::to_string(l) + "." + layer);
  }
  put("final_norm.weight");
  put("final_norm.bias");
}

// B T + 1 tokens: one batch, whatever the order of its rows.
std::vector<uint16_t> random_tokens() {
  test::Random random(81);
  std::vector<uint16_t> tokens;
  for (int64_t i = 0; i <= kBatch * kSeqLen; ++i) {
    tokens.push_back(static_cast<uint16_t>(random.integer(0, 50256)));
  }
  return tokens;
}

void write_tokens(const std::string& path, const std::vector<uint16_t>& tokens) {
  std::ofstream out(path, std::ios::binary);
  write_words(out, {20240520, 1, static_cast<int32_t>(tokens.size())});
  out.write(reinterpret_cast<const char*>(tokens.data()),
            static_cast<std::streamsize>(tokens.size() * 2));
}

struct Trajectory {
  std::vector<double> losses;
  test::Weights first_grads, weights;
};

// `seed` 0: exact. Otherwise every step as rough as FP32 may be, the stored weights included.
Trajectory reference_run(const ModelConfig& model, test::Weights weights, const test::Batch& batch,
                         uint64_t seed) {
  Trajectory run;
  test::ReferenceAdamW adamw{
      .beta1 = kBeta1, .beta2 = kBeta2, .eps = kEps, .weight_decay = 0, .m = {}, .v = {}, .t = 0};
  for (int64_t step = 0; step < kSteps; ++step) {
    test::Rounding rounding;
    if (seed > 0) {
      rounding = test::Rounding(test::kF32Roundoff, test::kF32Roundoff,
                                seed * 1000 + static_cast<uint64_t>(step));
    }
    const test::ReferenceResult result =
        test::reference_forward_backward(model, weights, batch, rounding);
    run.losses.push_back(result.loss);
    if (step == 0) run.first_grads = result.grads;
    adamw.update(weights, result.grads, static_cast<double>(kLr));
    for (auto& [name, weight] : weights) {
      for (double& x : weight.v) x = rounding.stored_fp32(x);
    }
  }
  run.weights = std::move(weights);
  return run;
}

double largest_difference(const test::Matrix& a, const test::Matrix& b) {
  double most = 0;
  for (size_t i = 0; i < a.v.size(); ++i) most = std::max(most, std::fabs(a.v[i] - b.v[i]));
  return most;
}

class Llmc : public ::testing::Test {
 protected:
  void qstep(const std::string& words) const {
    const std::string command =
        std::string(QSTEP_EXECUTABLE) + " " + words + " > " + (folder_ / "log.txt") + " 2>&1";
    ASSERT_EQ(0, std::system(command.c_str())) << words << '\n'
                                               << std::ifstream(folder_ / "log.txt").rdbuf();
  }
  // A tensor of a checkpoint without the padding of the vocabulary.
  test::Matrix tensor(int64_t step, const std::string& name, const test::Matrix& like) const {
    const CheckpointReader reader(folder_ / fmt::format("run/checkpoints/step-{:08}", step));
    const int64_t rows = name.ends_with("wte.weight") ? (like.rows + 127) / 128 * 128 : like.rows;
    std::vector<float> values(static_cast<size_t>(rows * like.cols));
    reader.read({name, ops::view(std::span(values), rows, like.cols)});
    test::Matrix m(like.rows, like.cols);
    for (size_t i = 0; i < m.v.size(); ++i) m.v[i] = static_cast<double>(values[i]);
    return m;
  }
  TemporaryFolder folder_;
};

// Bounds as in model_test: kFactor times the largest deviation of runs whose every rounding is
// random.
TEST_F(Llmc, TenStepsAreThoseOfTheReference) {
  constexpr int kTrials = 3;
  constexpr double kFactor = 4;
  const ModelConfig model = small_gpt2();
  const test::Weights start = random_weights(model);
  const std::vector<uint16_t> tokens = random_tokens();
  write_model(folder_ / "model.bin", model, start);
  write_tokens(folder_ / "tokens.bin", tokens);
  test::Batch batch{.batch = kBatch, .seq_len = kSeqLen, .tokens = {}, .targets = {}};
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    batch.tokens.push_back(tokens[i]);
    batch.targets.push_back(tokens[i + 1]);
  }

  qstep("data import --from llmc " + (folder_ / "tokens.bin") + " -o " + (folder_ / "corpus.h5"));
  qstep("ckpt import --from llmc " + (folder_ / "model.bin") + " -o " +
        (folder_ / "run/checkpoints"));
  qstep(fmt::format(
      "train data.train={0}/corpus.h5 run.dir={0}/run run.save_every=1 run.keep_last=20 "
      "train.steps=10 train.global_batch=2 train.micro_batch=2 "
      "train.seq_len=8 train.eval_every=0 "
      "precision.recipe=fp32 optimizer.lr=1e-4 optimizer.schedule=constant "
      "optimizer.beta1=0.9 optimizer.beta2=0.999 optimizer.eps=1e-8 optimizer.weight_decay=0 "
      "optimizer.clip_norm=0 model.n_layers=2 model.width=8 model.n_heads=2 model.max_seq_len=12 "
      "model.norm=layer model.position=learned model.activation=gelu model.bias=true "
      "model.tied_head=true",
      folder_.path()));
  if (HasFatalFailure()) return;

  const Trajectory exact = reference_run(model, start, batch, 0);
  std::vector<Trajectory> rough;
  for (int trial = 1; trial <= kTrials; ++trial) {
    rough.push_back(reference_run(model, start, batch, static_cast<uint64_t>(trial)));
  }
  double worst_loss = 0, worst_grad = 0, worst_weight = 0;

  std::ifstream metrics(folder_ / "run/metrics.jsonl");
  std::vector<double> losses;
  for (std::string line; std::getline(metrics, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.at("type") == "step") losses.push_back(row.at("loss"));
  }
  ASSERT_EQ(static_cast<size_t>(kSteps), losses.size());
  for (size_t i = 0; i < losses.size(); ++i) {
    double bound = test::kF32Roundoff * exact.losses[i];
    for (const Trajectory& run : rough) {
      bound = std::max(bound, std::fabs(run.losses[i] - exact.losses[i]));
    }
    EXPECT_NEAR(exact.losses[i], losses[i], kFactor * bound) << "step " << i + 1;
    EXPECT_LT(kFactor * bound, 1e-4);
    worst_loss = std::max(worst_loss, std::fabs(exact.losses[i] - losses[i]) / (kFactor * bound));
  }
  EXPECT_LT(losses.back(), losses.front());

  for (const auto& [name, weight] : start) {
    // The first moment after one update is (1 - beta1) times the gradient, rounded twice.
    const test::Matrix& grad = exact.first_grads.at(name);
    test::Matrix found_grad = tensor(1, "adam_m/" + name, weight);
    double bound = 0, largest = 0;
    for (double& x : found_grad.v) x /= 1.0 - static_cast<double>(kBeta1);
    for (const double g : grad.v) largest = std::max(largest, std::fabs(g));
    for (const Trajectory& run : rough) {
      bound = std::max(bound, largest_difference(run.first_grads.at(name), grad));
    }
    bound = kFactor * std::max(bound, test::kF32Roundoff * largest);
    test::expect_within(grad.v, found_grad.v, test::Bound{0, bound}, "gradient of " + name);
    worst_grad = std::max(worst_grad, largest_difference(grad, found_grad) / bound);

    const test::Matrix found = tensor(kSteps, "master/" + name, weight);
    bound = 0;
    for (const Trajectory& run : rough) {
      bound = std::max(bound, largest_difference(run.weights.at(name), exact.weights.at(name)));
    }
    bound *= kFactor;
    test::expect_within(exact.weights.at(name).v, found.v, test::Bound{0, bound}, name);
    worst_weight =
        std::max(worst_weight, largest_difference(exact.weights.at(name), found) / bound);
  }
  RecordProperty("worst_loss", fmt::format("{:.3f}", worst_loss));
  RecordProperty("worst_gradient", fmt::format("{:.3f}", worst_grad));
  RecordProperty("worst_weight", fmt::format("{:.3f}", worst_weight));
}

}  // namespace
}  // namespace qstep::trainer::testing
