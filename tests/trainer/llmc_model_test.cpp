#include "trainer/model/llmc_model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>

#include "data/tokenizer.h"
#include "precision/bf16.h"
#include "tests/trainer/checkpoint_testing.h"
#include "trainer/config/config.h"

namespace qstep::trainer {
namespace {

using testing::code_of;
using testing::TemporaryFolder;

// The dimensions of a tiny GPT-2, and its file written out by hand from the format's description.
constexpr int32_t kMaxT = 8, kV = 130, kL = 3, kHeads = 2, kC = 4, kVp = 256;

struct Stack {
  const char* name;  // ours; "" in front of it for tensors outside the blocks
  int64_t count;     // layers, or 1
  int64_t elements;  // of one layer
};
constexpr std::array<Stack, 16> kFileOrder = {{{"wte.weight", 1, kVp* kC},
                                               {"wpe.weight", 1, kMaxT* kC},
                                               {"norm1.weight", kL, kC},
                                               {"norm1.bias", kL, kC},
                                               {"qkv.weight", kL, 3 * kC* kC},
                                               {"qkv.bias", kL, 3 * kC},
                                               {"attn_out.weight", kL, kC* kC},
                                               {"attn_out.bias", kL, kC},
                                               {"norm2.weight", kL, kC},
                                               {"norm2.bias", kL, kC},
                                               {"up.weight", kL, 4 * kC* kC},
                                               {"up.bias", kL, 4 * kC},
                                               {"down.weight", kL, 4 * kC* kC},
                                               {"down.bias", kL, kC},
                                               {"final_norm.weight", 1, kC},
                                               {"final_norm.bias", 1, kC}}};

// Element number i of the file; zero in the padding rows of wte, exact in BF16.
float value_at(int64_t i) {
  if (i >= kV * kC && i < kVp * kC) return 0;
  return static_cast<float>(i % 251) - 125;
}

std::vector<int32_t> header_words(int32_t version) {
  std::vector<int32_t> words(256);
  const std::array<int32_t, 8> used = {20240326, version, kMaxT, kV, kL, kHeads, kC, kVp};
  std::copy(used.begin(), used.end(), words.begin());
  return words;
}

int64_t count_of_weights() {
  int64_t n = 0;
  for (const Stack& stack : kFileOrder) n += stack.count * stack.elements;
  return n;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string file_fp32(const std::vector<int32_t>& header = header_words(3)) {
  std::vector<float> values;
  for (int64_t i = 0; i < count_of_weights(); ++i) values.push_back(value_at(i));
  return bytes_of(header) + bytes_of(values);
}

std::string file_bf16() {
  std::vector<precision::Bf16> values;
  for (int64_t i = 0; i < count_of_weights(); ++i)
    values.push_back(precision::to_bf16(value_at(i)));
  return bytes_of(header_words(5)) + bytes_of(values);
}

void write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

void expect_right_weights(const std::vector<NamedTensor>& weights) {
  std::map<std::string, ops::Tensor> by_name;
  for (const NamedTensor& w : weights) by_name[w.name] = w.tensor;
  int64_t at = 0;
  for (const Stack& stack : kFileOrder) {
    for (int64_t l = 0; l < stack.count; ++l) {
      const std::string name =
          stack.count == 1 ? stack.name : fmt::format("blocks.{}.{}", l, stack.name);
      ASSERT_TRUE(by_name.contains(name)) << name;
      ASSERT_EQ(by_name[name].size(), stack.elements) << name;
      const float* values = by_name[name].as<float>();
      for (int64_t i = 0; i < stack.elements; ++i, ++at) {
        ASSERT_EQ(values[i], value_at(at)) << name << " " << i;
      }
    }
  }
  EXPECT_EQ(by_name.size(), 4u + 12u * kL);
}

TEST(LlmcModel, ReadsBothVersions) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.bin";
  for (const std::string& bytes : {file_fp32(), file_bf16()}) {
    write(path, bytes);
    const LlmcModel loaded = read_llmc_model(path);
    const ModelConfig& m = loaded.model;
    EXPECT_EQ(m.preset, "");
    EXPECT_EQ(m.vocab_size, kV);
    EXPECT_EQ(m.padded_vocab(), kVp);
    EXPECT_EQ(m.n_layers, kL);
    EXPECT_EQ(m.width, kC);
    EXPECT_EQ(m.n_heads, kHeads);
    EXPECT_EQ(m.n_kv_heads, kHeads);
    EXPECT_EQ(m.head_dim, kC / kHeads);
    EXPECT_EQ(m.ffn_width, 4 * kC);
    EXPECT_EQ(m.max_seq_len, kMaxT);
    EXPECT_EQ(m.norm, NormKind::kLayer);
    EXPECT_EQ(m.position, PositionKind::kLearned);
    EXPECT_EQ(m.activation, ops::Activation::kGelu);
    EXPECT_TRUE(m.bias);
    EXPECT_TRUE(m.tied_head);
    EXPECT_FALSE(m.qk_norm);
    expect_right_weights(loaded.weights);
  }
}

TEST(LlmcModel, WritesTheSameBytes) {
  const TemporaryFolder folder;
  write(folder / "model.bin", file_fp32());
  const LlmcModel loaded = read_llmc_model(folder / "model.bin");
  write_llmc_model(folder / "again.bin", loaded.model, loaded.weights);
  EXPECT_EQ(read_file(folder / "again.bin"), file_fp32());
}

TEST(LlmcModel, PaddingRowsBecomeZero) {
  const TemporaryFolder folder;
  std::string bytes = file_fp32();
  const float stray = 3;
  std::memcpy(bytes.data() + 1024 + sizeof(float) * (kV * kC + 5), &stray, sizeof stray);
  write(folder / "model.bin", bytes);
  expect_right_weights(read_llmc_model(folder / "model.bin").weights);
}

TEST(LlmcModel, TravelsThroughACheckpoint) {
  const TemporaryFolder folder;
  write(folder / "model.bin", file_fp32());
  import_llmc_model(folder / "model.bin", folder / "gpt2");
  const std::string checkpoint = folder / "gpt2/step-00000000";
  EXPECT_EQ(newest_checkpoint(folder / "gpt2", {}), checkpoint);

  const CheckpointReader reader(checkpoint);
  const CheckpointState& state = reader.state();
  EXPECT_EQ(state.step, 0);
  EXPECT_EQ(state.tokens, 0);
  EXPECT_EQ(state.updates, 0);
  EXPECT_EQ(state.vocab_size, kV);
  EXPECT_EQ(state.tokenizer, "llmc-gpt2");
  EXPECT_EQ(state.tokenizer_sha256, data::tokenizer_sha256(state.tokenizer, ""));
  EXPECT_EQ(state.tokenizer_model, "");
  const Config config = parse_config(state.config_toml, "state.json", {}).config;
  EXPECT_EQ(config.model.preset, "");
  EXPECT_EQ(config.model.vocab_size, kV);
  EXPECT_EQ(config.model.ffn_width, 4 * kC);
  EXPECT_EQ(config.model.max_seq_len, kMaxT);
  EXPECT_EQ(config.train.seq_len, kMaxT);
  EXPECT_EQ(state.config_hash, config_hash(config));
  EXPECT_EQ(reader.names().size(), 3 * (4u + 12u * kL));
  std::vector<float> moment(4 * kC * kC, 1.0f);
  for (const char* name : {"adam_m/blocks.2.up.weight", "adam_v/blocks.2.up.weight"}) {
    std::fill(moment.begin(), moment.end(), 1.0f);
    reader.read({name, ops::matrix(moment.data(), ops::Dtype::kF32, 4 * kC, kC)});
    EXPECT_EQ(std::count(moment.begin(), moment.end(), 0.0f), 4 * kC * kC);
  }

  export_llmc_model(reader, folder / "again.bin");
  EXPECT_EQ(read_file(folder / "again.bin"), file_fp32());
}

TEST(LlmcModel, RefusesFilesThatAreNotExactlyRight) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.bin";
  const std::string whole = file_fp32();
  const auto refused = [&](const std::string& bytes, const std::string& part) {
    write(path, bytes);
    std::string text;
    EXPECT_EQ(code_of([&] { read_llmc_model(path); }, &text), ops::ExitCode::kData) << part;
    EXPECT_NE(text.find(path), std::string::npos) << text;
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  refused("", "header of 1024 bytes");
  refused(whole.substr(0, 1023), "header of 1024 bytes");
  refused(whole.substr(0, 1024), fmt::format("expected {} bytes", whole.size()));
  refused(whole.substr(0, whole.size() - 1), fmt::format("found {}", whole.size() - 1));
  refused(whole + "x", fmt::format("found {}", whole.size() + 1));
  refused(file_bf16() + whole, "version 5");

  const auto refused_header = [&](size_t word, int32_t value, const std::string& part) {
    std::vector<int32_t> header = header_words(3);
    header[word] = value;
    refused(file_fp32(header), part);
  };
  refused_header(0, 20240520, "model file of llm.c");
  refused_header(1, 1, "expected version 3 (FP32) or 5 (BF16), found 1");
  for (size_t word = 2; word < 8; ++word) {
    for (const int32_t value : {0, -1, std::numeric_limits<int32_t>::max()}) {
      refused_header(word, value, "expected 1 to");
    }
  }
  refused_header(5, 3, "not a multiple");
  refused_header(7, 130, "expected 256");
  refused_header(3, 300, "expected 384");
  refused_header(4, 2, "expected");
  EXPECT_EQ(code_of([&] { read_llmc_model(folder / "absent"); }), ops::ExitCode::kData);
}

TEST(LlmcModel, OnlyGpt2FitsTheFormat) {
  const TemporaryFolder folder;
  write(folder / "model.bin", file_fp32());
  const LlmcModel loaded = read_llmc_model(folder / "model.bin");
  const auto code = [&](auto change) {
    ModelConfig model = loaded.model;
    change(model);
    return code_of([&] { write_llmc_model(folder / "out.bin", model, loaded.weights); });
  };
  using ops::ExitCode;
  EXPECT_EQ(code([](ModelConfig& m) { m.norm = NormKind::kRms; }), ExitCode::kConfig);
  EXPECT_EQ(code([](ModelConfig& m) { m.position = PositionKind::kRope; }), ExitCode::kConfig);
  EXPECT_EQ(code([](ModelConfig& m) { m.activation = ops::Activation::kRelu2; }),
            ExitCode::kConfig);
  EXPECT_EQ(code([](ModelConfig& m) { m.bias = false; }), ExitCode::kConfig);
  EXPECT_EQ(code([](ModelConfig& m) { m.qk_norm = true; }), ExitCode::kConfig);
  EXPECT_EQ(code([](ModelConfig& m) { m.tied_head = false; }), ExitCode::kConfig);
  EXPECT_EQ(code([](ModelConfig& m) { m.norm_eps = 1e-6; }), ExitCode::kConfig);
  EXPECT_EQ(code([](ModelConfig& m) { m.n_kv_heads = 1; }), ExitCode::kConfig);
  EXPECT_EQ(code([](ModelConfig& m) { m.ffn_width = 8; }), ExitCode::kConfig);
  EXPECT_FALSE(std::filesystem::exists(folder / "out.bin"));
}

}  // namespace
}  // namespace qstep::trainer
