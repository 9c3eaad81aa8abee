#include "trainer/config/tensor_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

#include "trainer/base/nearest.h"
#include "trainer/config/layer_precision.h"
#include "trainer/config/recipe_check.h"

namespace qstep::trainer {

namespace {

using precision::OperandSlot;
using precision::QuantSpec;

// Dimensions of y [N, O] = x [N, I] w [O, I]^T: an operand's rows, and what its GEMM sums over.
enum class Dim : uint8_t { kTokens, kIn, kOut };
struct OperandDims {
  Dim rows, k;
};
constexpr std::array<OperandDims, precision::kOperandSlots> kDims{{{Dim::kTokens, Dim::kIn},
                                                                   {Dim::kOut, Dim::kIn},
                                                                   {Dim::kTokens, Dim::kOut},
                                                                   {Dim::kIn, Dim::kOut},
                                                                   {Dim::kOut, Dim::kTokens},
                                                                   {Dim::kIn, Dim::kTokens}}};

// Column-parallel layers are cut along what they make, row-parallel ones along what they read.
Dim cut_dim(LinearKind kind) {
  return kind == LinearKind::kQkv || kind == LinearKind::kUp ? Dim::kOut : Dim::kIn;
}

// Features of which a rank has a share. Of a qkv layer those of the keys: a rank's queries are a
// multiple of them.
enum class Features : uint8_t { kKeys, kQueries, kMlp };
Features cut_features(LinearKind kind) {
  if (kind == LinearKind::kQkv) return Features::kKeys;
  return kind == LinearKind::kAttnOut ? Features::kQueries : Features::kMlp;
}

// Random bits are counted and rows are quantized in groups of as many elements.
constexpr int kGroup = 16;

// What an operand wants a dimension of its own to be a multiple of where it is cut: then no block,
// scale or transform is shared by two ranks. All are powers of two.
int64_t multiple_of_share(const QuantSpec& spec, bool along_k) {
  if (!spec.quantized()) return 1;
  return std::max(kGroup, along_k ? unit_k(spec) : spec.block.rows);
}

// What the recipe wants of a rank's share of some features, with all layers and operands that do.
struct Need {
  Features features = Features::kMlp;
  int64_t multiple = 1;
  std::set<int64_t> modules;
  std::vector<std::string> operands;  // "x_fprop (nvfp4 1x16)"
};

class TensorCheck {
 public:
  explicit TensorCheck(const Config& config)
      : model_(config.model),
        micro_batch_(config.train.micro_batch),
        seq_len_(config.train.seq_len) {
    if (!config.precision.loaded.quantized()) return;
    for (const PrecisionPhase& phase : plan_precision(config).phases) {
      for (size_t i = 0; i < phase.tables.size(); ++i) {
        add_needs(static_cast<int64_t>(i), phase.tables[i]);
      }
    }
  }

  std::vector<int64_t> possible() const {
    std::vector<int64_t> values;
    for (int64_t t = 1; t <= model_.n_kv_heads; ++t) {
      if (t == 1 || is_possible(t)) values.push_back(t);
    }
    return values;
  }

  std::vector<std::string> problems(int64_t t) const {
    std::vector<std::string> texts;
    if (t == 1) return texts;
    const std::string values = nearest_numbers(possible(), t);
    const auto problem = [&](const std::string& what, const std::string& other) {
      texts.push_back(fmt::format("parallel.tensor = {}{}: write parallel.tensor = {}{}{}", t, what,
                                  values, other.empty() ? "" : ", or ", other));
    };
    const ModelConfig& m = model_;
    if (m.n_heads % t != 0) {
      problem(fmt::format(" does not divide model.n_heads = {}", m.n_heads), "");
    }
    if (m.n_kv_heads % t != 0 && m.n_kv_heads != m.n_heads) {
      problem(
          fmt::format(" does not divide model.n_kv_heads = {}, and ranks share no key/value head",
                      m.n_kv_heads),
          kv_heads_advice(t));
    }
    if (m.ffn_width % t != 0) {
      problem(fmt::format(" does not divide model.ffn_width = {}", m.ffn_width), ffn_advice(t));
    }
    if (m.padded_vocab() % t != 0) {
      const int64_t step = std::lcm(t, int64_t{128});
      problem(fmt::format(" does not divide the {} rows of the embedding (model.vocab_size = {}, "
                          "rounded up to a multiple of 128)",
                          m.padded_vocab(), m.vocab_size),
              fmt::format("model.vocab_size = {}", (m.vocab_size / step + 1) * step));
    }
    if (micro_batch_ * seq_len_ % t != 0) {
      problem(fmt::format(" does not divide the {} tokens of a micro-batch (train.micro_batch = "
                          "{}, train.seq_len = {})",
                          micro_batch_ * seq_len_, micro_batch_, seq_len_),
              seq_len_advice(t));
    }
    for (const Need& need : needs_) {
      if (!divides(t, need.features) || share(need.features, t) % need.multiple == 0) continue;
      std::string other = keep_advice(need.modules);
      if (need.features == Features::kMlp) other = ffn_advice(t) + ", or " + other;
      problem(fmt::format(": {} of {} need {} in multiples of {}, found {}",
                          fmt::join(need.operands, ", "),
                          module_names({need.modules.begin(), need.modules.end()}),
                          share_text(need.features), need.multiple, share(need.features, t)),
              other);
    }
    return texts;
  }

 private:
  void add_needs(int64_t module, const precision::OperandTable& table) {
    const auto kind = static_cast<LinearKind>(module % kLinearsPerBlock);
    for (size_t s = 0; s < kDims.size(); ++s) {
      const auto slot = static_cast<OperandSlot>(s);
      const QuantSpec& spec = table[slot];
      if (!spec.quantized()) continue;
      const auto [rows, k] = kDims[s];
      if (k == Dim::kTokens) token_unit_ = std::max<int64_t>(token_unit_, multiple_of_k(spec));
      if (rows == Dim::kTokens)
        token_unit_ = std::max<int64_t>(token_unit_, multiple_of_rows(spec));
      const Dim cut = cut_dim(kind);
      if (rows != cut && k != cut) continue;
      Need& need = need_of(cut_features(kind), multiple_of_share(spec, k == cut));
      need.modules.insert(module);
      const std::string operand = operand_text(slot, spec);
      if (std::find(need.operands.begin(), need.operands.end(), operand) == need.operands.end()) {
        need.operands.push_back(operand);
      }
    }
  }

  Need& need_of(Features features, int64_t multiple) {
    for (Need& need : needs_) {
      if (need.features == features && need.multiple == multiple) return need;
    }
    return needs_.emplace_back(Need{features, multiple, {}, {}});
  }

  bool divides(int64_t t, Features features) const {
    return (features == Features::kMlp ? model_.ffn_width : model_.n_kv_heads) % t == 0;
  }
  int64_t share(Features features, int64_t t) const {
    switch (features) {
      case Features::kKeys:
        return model_.n_kv_heads / t * model_.head_dim;
      case Features::kQueries:
        return model_.n_heads / t * model_.head_dim;
      case Features::kMlp:
        return model_.ffn_width / t;
    }
    return 0;
  }
  std::string share_text(Features features) const {
    switch (features) {
      case Features::kKeys:
        return fmt::format("a rank's key features (model.n_kv_heads = {}, model.head_dim = {})",
                           model_.n_kv_heads, model_.head_dim);
      case Features::kQueries:
        return fmt::format("a rank's query features (model.n_heads = {}, model.head_dim = {})",
                           model_.n_heads, model_.head_dim);
      case Features::kMlp:
        return fmt::format("a rank's MLP features (model.ffn_width = {})", model_.ffn_width);
    }
    return "";
  }

  bool is_possible(int64_t t) const {
    return model_.n_heads % t == 0 && model_.n_kv_heads % t == 0 && model_.ffn_width % t == 0 &&
           model_.padded_vocab() % t == 0 && micro_batch_ * seq_len_ % t == 0 &&
           std::all_of(needs_.begin(), needs_.end(), [&](const Need& need) {
             return share(need.features, t) % need.multiple == 0;
           });
  }

  // ---- other options that would help ------------------------------------------------------

  std::string kv_heads_advice(int64_t t) const {
    std::vector<int64_t> values;
    for (int64_t k = t; k <= model_.n_heads; k += t) {
      if (model_.n_heads % k == 0) values.push_back(k);
    }
    if (values.empty()) return "";
    return fmt::format("model.n_kv_heads = {}", nearest_numbers(values, model_.n_kv_heads));
  }

  std::string ffn_advice(int64_t t) const {
    int64_t unit = 1;
    for (const Need& need : needs_) {
      if (need.features == Features::kMlp) unit = std::max(unit, need.multiple);
    }
    return fmt::format("model.ffn_width = {}", multiples_around(model_.ffn_width, t * unit));
  }

  std::string seq_len_advice(int64_t t) const {
    const int64_t tokens = std::lcm(t, token_unit_);
    const int64_t step = tokens / std::gcd(tokens, micro_batch_);
    const int64_t below = seq_len_ / step * step, above = below + step;
    std::vector<int64_t> values;
    if (below > 0) values.push_back(below);
    if (model_.position == PositionKind::kRope || above <= model_.max_seq_len) {
      values.push_back(above);
    }
    if (values.empty()) return "";
    return fmt::format("train.seq_len = {}", fmt::join(values, " or "));
  }

  const ModelConfig& model_;
  int64_t micro_batch_, seq_len_;
  std::vector<Need> needs_;
  int64_t token_unit_ = 1;  // what the recipe wants the tokens of a micro-batch to be a multiple of
};

}  // namespace

std::vector<int64_t> possible_tensors(const Config& config) {
  return TensorCheck(config).possible();
}

std::vector<std::string> tensor_problems(const Config& config) {
  if (config.parallel.tensor == 1) return {};
  return TensorCheck(config).problems(config.parallel.tensor);
}

}  // namespace qstep::trainer
