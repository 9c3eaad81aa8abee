#include "trainer/model/llmc_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>

#include "data/tokenizer.h"
#include "ops/error.h"
#include "precision/bf16.h"
#include "trainer/base/durable_files.h"
#include "trainer/config/config.h"
#include "trainer/config/recipe_file.h"
#include "trainer/model/weights.h"

namespace qstep::trainer {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr int32_t kMagic = 20240326;
constexpr int32_t kVersionFp32 = 3;
constexpr int32_t kVersionBf16 = 5;
constexpr size_t kHeaderWords = 256;
constexpr int64_t kHeaderBytes = kHeaderWords * 4;
constexpr const char* kTokenizer = "llmc-gpt2";  // as data/llmc_tokens.h calls it in token stores

using Header = std::array<int32_t, kHeaderWords>;
// Words of the header.
enum : size_t { kAtMagic, kAtVersion, kAtMaxT, kAtV, kAtL, kAtH, kAtC, kAtVp, kUsedWords };

// Far above every GPT-2, and small enough that no product of them overflows.
struct Bound {
  size_t word;
  const char* name;
  int32_t max;
};
constexpr std::array kBounds = {Bound{kAtMaxT, "max T", 1 << 20}, Bound{kAtV, "V", 1 << 24},
                                Bound{kAtL, "L", 1 << 12},        Bound{kAtH, "heads", 1 << 12},
                                Bound{kAtC, "C", 1 << 17},        Bound{kAtVp, "Vp", 1 << 24}};

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw ops::Error(ops::ExitCode::kData, fmt::format("{}: {}", path, what));
}

// Our weights in the order of the file: each kind of a block's weight is one stack over the layers.
std::vector<WeightSpec> in_file_order(const ModelConfig& model) {
  std::map<std::string, WeightSpec> by_name;
  for (const WeightSpec& spec : weight_list(model)) by_name[spec.name] = spec;
  std::vector<WeightSpec> order = {by_name.at("wte.weight"), by_name.at("wpe.weight")};
  for (const char* name :
       {"norm1.weight", "norm1.bias", "qkv.weight", "qkv.bias", "attn_out.weight", "attn_out.bias",
        "norm2.weight", "norm2.bias", "up.weight", "up.bias", "down.weight", "down.bias"}) {
    for (int64_t l = 0; l < model.n_layers; ++l) {
      order.push_back(by_name.at(fmt::format("blocks.{}.{}", l, name)));
    }
  }
  order.push_back(by_name.at("final_norm.weight"));
  order.push_back(by_name.at("final_norm.bias"));
  ops::check_equal(by_name.size(), order.size(), "llm.c: the list of weights");
  return order;
}

// What in the model GPT-2 as llm.c has it does not have; empty when it fits.
std::string misfit(const ModelConfig& m) {
  const ModelConfig gpt2 = gpt2_model({.n_layers = m.n_layers,
                                       .width = m.width,
                                       .n_heads = m.n_heads,
                                       .vocab_size = m.vocab_size,
                                       .max_seq_len = m.max_seq_len});
  if (m.norm != gpt2.norm) return "model.norm is not layer";
  if (m.position != gpt2.position) return "model.position is not learned";
  if (m.activation != gpt2.activation) return "model.activation is not gelu";
  if (!m.bias) return "model.bias is false";
  if (m.qk_norm) return "model.qk_norm is true";
  if (!m.tied_head) return "model.tied_head is false";
  if (m.norm_eps != gpt2.norm_eps) return "model.norm_eps is not 1e-5";
  if (m.n_kv_heads != m.n_heads) return "model.n_kv_heads is not model.n_heads";
  if (m.head_dim * m.n_heads != m.width) return "heads and head_dim do not make up the width";
  if (m.ffn_width != gpt2.ffn_width) return "model.ffn_width is not 4 model.width";
  return "";
}

ModelConfig model_of(const std::string& path, const Header& header) {
  if (header[kAtMagic] != kMagic) {
    fail(path, fmt::format("expected a model file of llm.c (first word {}), found {}", kMagic,
                           header[kAtMagic]));
  }
  if (header[kAtVersion] != kVersionFp32 && header[kAtVersion] != kVersionBf16) {
    fail(path, fmt::format("expected version {} (FP32) or {} (BF16), found {}", kVersionFp32,
                           kVersionBf16, header[kAtVersion]));
  }
  for (const Bound& bound : kBounds) {
    const int32_t found = header[bound.word];
    if (found < 1 || found > bound.max) {
      fail(path, fmt::format("{}: expected 1 to {}, found {}", bound.name, bound.max, found));
    }
  }
  if (header[kAtC] % header[kAtH] != 0) {
    fail(path, fmt::format("C = {} is not a multiple of the number of heads, {}", header[kAtC],
                           header[kAtH]));
  }
  ModelConfig model = gpt2_model({.n_layers = header[kAtL],
                                  .width = header[kAtC],
                                  .n_heads = header[kAtH],
                                  .vocab_size = header[kAtV],
                                  .max_seq_len = header[kAtMaxT]});
  if (header[kAtVp] != model.padded_vocab()) {
    fail(path, fmt::format("Vp: expected {} (V = {} rounded up to a multiple of 128), found {}",
                           model.padded_vocab(), header[kAtV], header[kAtVp]));
  }
  const std::vector<std::string> problems = model_problems(model, model.max_seq_len);
  if (!problems.empty()) fail(path, problems.front());
  return model;
}

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

void read_bytes(std::FILE* file, const std::string& path, void* out, size_t n) {
  if (std::fread(out, 1, n, file) == n) return;
  fail(path, std::ferror(file) ? fmt::format("cannot read: {}", std::strerror(errno))
                               : "the file ended while it was read");
}

void read_widened(std::FILE* file, const std::string& path, std::span<float> out) {
  std::vector<precision::Bf16> narrow(std::min<size_t>(out.size(), size_t{1} << 18));
  for (size_t done = 0; done < out.size();) {
    const size_t n = std::min(narrow.size(), out.size() - done);
    read_bytes(file, path, narrow.data(), n * sizeof(narrow[0]));
    for (size_t i = 0; i < n; ++i) out[done + i] = precision::to_float(narrow[i]);
    done += n;
  }
}

std::string_view bytes_of(const ops::Tensor& x) {
  return {static_cast<const char*>(x.data), static_cast<size_t>(x.bytes())};
}

}  // namespace

LlmcModel read_llmc_model(const std::string& path) {
  std::error_code code;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path, code));
  if (code) fail(path, fmt::format("cannot open: {}", code.message()));
  const File file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) fail(path, fmt::format("cannot open: {}", std::strerror(errno)));
  if (size < kHeaderBytes) {
    fail(path,
         fmt::format("expected a header of {} bytes, found a file of {}", kHeaderBytes, size));
  }
  Header header{};
  read_bytes(file.get(), path, header.data(), kHeaderBytes);

  LlmcModel result;
  result.model = model_of(path, header);
  const std::vector<WeightSpec> specs = in_file_order(result.model);
  int64_t count = 0;
  for (const WeightSpec& spec : specs) count += spec.rows * spec.cols;
  const bool narrow = header[kAtVersion] == kVersionBf16;
  const int64_t expected = kHeaderBytes + count * (narrow ? 2 : 4);
  if (size != expected) {
    fail(path, fmt::format("expected {} bytes for {} weights of version {}, found {}", expected,
                           count, header[kAtVersion], size));
  }

  result.values.resize(static_cast<size_t>(count));
  if (narrow) {
    read_widened(file.get(), path, result.values);
  } else {
    read_bytes(file.get(), path, result.values.data(), result.values.size() * sizeof(float));
  }
  float* at = result.values.data();
  for (const WeightSpec& spec : specs) {
    std::fill(at + spec.used_rows * spec.cols, at + spec.rows * spec.cols, 0.0f);
    result.weights.push_back({spec.name, ops::matrix(at, ops::Dtype::kF32, spec.rows, spec.cols)});
    at += spec.rows * spec.cols;
  }
  return result;
}

void write_llmc_model(const std::string& path, const ModelConfig& model,
                      std::span<const NamedTensor> weights) {
  const std::string problem = misfit(model);
  if (!problem.empty()) {
    throw ops::Error(ops::ExitCode::kConfig,
                     fmt::format("{}: llm.c's format holds GPT-2 only, and {}", path, problem));
  }
  Header header{};
  const auto set = [&](size_t word, int64_t value) { header[word] = static_cast<int32_t>(value); };
  set(kAtMagic, kMagic);
  set(kAtVersion, kVersionFp32);
  set(kAtMaxT, model.max_seq_len);
  set(kAtV, model.vocab_size);
  set(kAtL, model.n_layers);
  set(kAtH, model.n_heads);
  set(kAtC, model.width);
  set(kAtVp, model.padded_vocab());

  std::map<std::string, ops::Tensor> by_name;
  for (const NamedTensor& named : weights) by_name[named.name] = named.tensor;
  std::vector<std::string_view> pieces = {
      {reinterpret_cast<const char*>(header.data()), kHeaderBytes}};
  for (const WeightSpec& spec : in_file_order(model)) {
    const auto found = by_name.find(spec.name);
    ops::check(found != by_name.end(), "llm.c: weight " + spec.name + " is missing");
    const ops::Tensor& x = found->second;
    ops::expect_shape(x, spec.rows, spec.cols, "llm.c: " + spec.name);
    ops::expect_dtype(x, ops::Dtype::kF32, "llm.c: " + spec.name);
    ops::check(x.contiguous(), "llm.c: strided " + spec.name);
    pieces.push_back(bytes_of(x));
  }
  CheckpointFiles().replace_file(path, pieces);
}

void import_llmc_model(const std::string& path, const std::string& root) {
  const LlmcModel loaded = read_llmc_model(path);
  Config config;
  config.model = loaded.model;
  config.train.seq_len = std::min(config.train.seq_len, loaded.model.max_seq_len);

  CheckpointState state;
  state.seed = config.train.seed;
  state.vocab_size = loaded.model.vocab_size;
  state.config_toml = to_toml(config);
  state.recipe_toml = to_toml(config.precision.loaded);
  state.config_hash = config_hash(config);
  state.tokenizer = kTokenizer;
  state.tokenizer_sha256 = data::tokenizer_sha256(kTokenizer, "");

  int64_t largest = 0;
  for (const NamedTensor& w : loaded.weights) largest = std::max(largest, w.tensor.size());
  std::vector<float> zeros(static_cast<size_t>(largest));  // all moments are views of it
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& w : loaded.weights) tensors.push_back({"master/" + w.name, w.tensor});
  for (const char* group : {"adam_m/", "adam_v/"}) {
    for (const NamedTensor& w : loaded.weights) {
      ops::Tensor moment = w.tensor;
      moment.data = zeros.data();
      tensors.push_back({group + w.name, moment});
    }
  }
  save_checkpoint(root, state, tensors, 0);
}

void export_llmc_model(const CheckpointReader& checkpoint, const std::string& path) {
  const CheckpointState& state = checkpoint.state();
  ModelConfig model =
      parse_config(state.config_toml, checkpoint.path() + "/state.json", {}).config.model;
  model.vocab_size = state.vocab_size;

  std::vector<NamedTensor> weights;
  std::vector<std::vector<float>> storage;
  for (const WeightSpec& spec : weight_list(model)) {
    std::vector<float>& values = storage.emplace_back(static_cast<size_t>(spec.rows * spec.cols));
    const ops::Tensor tensor = ops::matrix(values.data(), ops::Dtype::kF32, spec.rows, spec.cols);
    checkpoint.read({"master/" + spec.name, tensor});
    weights.push_back({spec.name, tensor});
  }
  write_llmc_model(path, model, weights);
}

}  // namespace qstep::trainer
