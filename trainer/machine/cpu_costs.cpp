#include "trainer/machine/cpu_costs.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <string>

#include "ops/peak_kernels.h"
#include "ops/reduce.h"
#include "trainer/base/bootstrap.h"
#include "trainer/machine/machine.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::AttentionShape;
using ops::Dtype;
using ops::Tensor;

namespace {

using Clock = std::chrono::steady_clock;

// Each kernel runs for so long in a round, or so often where that takes longer; the median of its
// turns counts.
constexpr std::chrono::milliseconds kRound{4};
constexpr size_t kLeastTurns = 3;

// The two sizes of a product, m = n = k, and one that has no work worth speaking of.
constexpr int64_t kSmallProduct = 384, kLargeProduct = 1024, kNoProduct = 16;
constexpr std::array<std::string_view, 3> kPasses{"fprop", "dgrad", "wgrad"};

// T and D of attention; four heads, of as many sequences as make 512 tokens.
struct AttentionSize {
  int64_t seq_len, head_dim;
};
constexpr std::array<AttentionSize, 3> kAttentions{{{512, 32}, {512, 128}, {64, 64}}};
constexpr int64_t kHeads = 4, kAttentionTokens = 512;

constexpr int64_t kWidth = 1024;       // of rows of elements
constexpr int64_t kVocabulary = 8192;  // rows of the table, columns of the logits
constexpr int64_t kTensorBytes = 4 << 20;
constexpr int64_t kOtherBytes = 16 << 20;  // beyond the second caches, and passes in a millisecond
// Where the size of the cache is not known, and at most: five tensors have its size.
constexpr int64_t kAssumedL3 = 32 << 20, kLargestL3 = 256 << 20;

std::string key(std::string_view kernel, Dtype type) {
  return std::string(kernel) + " " + std::string(name(type));
}
std::string key(ElementOp op, Dtype type) {
  return key("element " + std::to_string(static_cast<int>(op)), type);
}
std::string product_key(std::string_view pass, int64_t size, Dtype type) {
  return key(std::string(pass) + " " + std::to_string(size), type);
}

// Pairs of queries and keys that the tiles of a head compute.
double attention_pairs(int64_t seq_len) {
  return 0.5 * static_cast<double>(seq_len) * static_cast<double>(seq_len + 24);
}

std::string attention_key(std::string_view direction, int64_t head_dim, Dtype type) {
  return key("attention " + std::string(direction) + " " + std::to_string(head_dim), type);
}

double cube(int64_t n) { return static_cast<double>(n) * static_cast<double>(n * n); }

// Of a product of that size; the weight gradient is FP32.
double product_bytes(std::string_view pass, int64_t size, Dtype type) {
  const auto e = static_cast<double>(size_bytes(type));
  return static_cast<double>(size * size) * (2 * e + (pass == kPasses[2] ? 4 : e));
}

}  // namespace

ProductCost product_cost(const MeasuredProduct& small, const MeasuredProduct& large,
                         double launch_s) {
  const double small_s = std::max(0.0, small.seconds - launch_s);
  const double large_s = std::max(0.0, large.seconds - launch_s);
  const double ratio = small.flops / large.flops;
  const double per_byte =
      std::max(0.0, (small_s - ratio * large_s) / (small.bytes - ratio * large.bytes));
  // Both cannot be all bytes.
  const double per_flop = std::max(0.0, (large_s - large.bytes * per_byte) / large.flops);
  return {.launch_s = launch_s, .s_per_flop = per_flop, .s_per_byte = per_byte};
}

double AttentionCost::seconds(int64_t seq_len, int64_t head_dim) const {
  const auto D = static_cast<double>(head_dim);
  return attention_pairs(seq_len) * (s_per_pair + D * s_per_pair_dim) +
         static_cast<double>(seq_len) * D * s_per_element;
}

AttentionCost attention_cost(const MeasuredAttention& small_head,
                             const MeasuredAttention& large_head, const MeasuredAttention& other) {
  const double small_dim = static_cast<double>(small_head.head_dim);
  const double large_dim = static_cast<double>(large_head.head_dim);
  const double T = static_cast<double>(small_head.seq_len),
               pairs = attention_pairs(small_head.seq_len);
  // What grows with D at this T: pairs s_per_pair_dim + T s_per_element.
  const double per_dim =
      std::clamp((large_head.seconds - small_head.seconds) / (large_dim - small_dim), 0.0,
                 large_head.seconds / large_dim);
  AttentionCost cost;
  cost.s_per_pair = (large_head.seconds - large_dim * per_dim) / pairs;
  const double ratio = attention_pairs(other.seq_len) / pairs;
  const double other_per_dim =
      (other.seconds - ratio * pairs * cost.s_per_pair) / static_cast<double>(other.head_dim);
  cost.s_per_element = std::clamp(
      (other_per_dim - ratio * per_dim) / (static_cast<double>(other.seq_len) - ratio * T), 0.0,
      per_dim / T);
  cost.s_per_pair_dim = (per_dim - T * cost.s_per_element) / pairs;
  return cost;
}

struct CpuProbe::Kernels {
  struct Kernel {
    std::function<void()> run;
    double amount = 1;                    // of what its time is divided by
    std::vector<double> seconds = {};     // per amount, a round each
    std::function<void()> ahead = [] {};  // of every run, not counted
  };

  std::unique_ptr<ops::Ops> ops = ops::make_cpu_ops();
  std::vector<ops::Buffer> buffers;
  ops::Buffer others = ops->allocate(kOtherBytes);
  std::map<std::string, Kernel> kernels;
  std::vector<Dtype> types;
  int64_t l3_bytes = kAssumedL3;

  Tensor take(Dtype type, int64_t rows, int64_t cols) {
    buffers.push_back(ops->allocate(rows * cols * size_bytes(type)));
    return ops::matrix(buffers.back().data(), type, rows, cols);
  }
  void add(const std::string& name, std::function<void()> run, double amount = 1) {
    kernels[name] = {.run = std::move(run), .amount = amount};
  }
  // What a call takes beside its work where others ran since the last one: its code and its first
  // lines are no longer in the caches of a core.
  void add_launch(const std::string& name, std::function<void()> run) {
    add(name, std::move(run));
    kernels[name].ahead = [this] {
      const auto n = others.bytes() / static_cast<int64_t>(2 * sizeof(float));
      float* const x = static_cast<float*>(others.data());
      ops::triad(x, x + n, x + n, 3.0f, n);
    };
  }
  void add(ElementOp op, Dtype type, double elements, std::function<void()> run) {
    add(key(op, type), std::move(run), elements);
  }
  double median(const std::string& name) const { return quantile(kernels.at(name).seconds, 0.5); }

  void add_products(Dtype type);
  void add_attention(Dtype type);
  void add_elements(Dtype type, const ModelConfig& model);
  void add_parameters(Dtype type);
  TypeCosts costs(Dtype type) const;
};

void CpuProbe::Kernels::add_products(Dtype type) {
  using ops::columnwise, ops::rowwise;
  // Weights, their gradients and what a forward pass keeps come from memory and go there: another
  // matrix of these every time.
  const auto pool = [this](Dtype of) {
    const int64_t bytes = std::max(2 * l3_bytes, kLargeProduct * kLargeProduct * size_bytes(of));
    return [all = take(of, 1, bytes / size_bytes(of)),
            first = std::make_shared<int64_t>(0)](int64_t n) {
      if (*first + n * n > all.cols) *first = 0;
      const Tensor next = all.col_range(*first, n * n).reshape(n, n);
      *first += n * n;
      return next;
    };
  };
  const auto cold = pool(type);
  const auto cold_dw = pool(Dtype::kF32);
  for (const int64_t n : {kSmallProduct, kLargeProduct}) {
    const Tensor a = take(type, n, n), d = take(type, n, n);
    add(product_key(kPasses[0], n, type),
        [=, this] { ops->gemm(cold(n), rowwise(a), rowwise(cold(n)), 1, Accumulate::kNo); });
    add(product_key(kPasses[1], n, type),
        [=, this] { ops->gemm(d, rowwise(a), columnwise(cold(n)), 1, Accumulate::kNo); });
    add(product_key(kPasses[2], n, type), [=, this] {
      ops->gemm(cold_dw(n), columnwise(a), columnwise(cold(n)), 1, Accumulate::kNo);
    });
  }
  const int64_t n = kNoProduct;
  const Tensor a = take(type, n, n), d = take(type, n, n), dw = take(Dtype::kF32, n, n);
  add_launch(product_key(kPasses[0], n, type),
             [=, this] { ops->gemm(d, rowwise(a), rowwise(a), 1, Accumulate::kNo); });
  add_launch(product_key(kPasses[1], n, type),
             [=, this] { ops->gemm(d, rowwise(a), columnwise(a), 1, Accumulate::kNo); });
  add_launch(product_key(kPasses[2], n, type),
             [=, this] { ops->gemm(dw, columnwise(a), columnwise(a), 1, Accumulate::kNo); });
}

void CpuProbe::Kernels::add_attention(Dtype type) {
  for (const auto& [seq_len, head_dim] : kAttentions) {
    const AttentionShape shape{.batch = kAttentionTokens / seq_len,
                               .seq_len = seq_len,
                               .n_heads = kHeads,
                               .n_kv_heads = kHeads,
                               .head_dim = head_dim};
    const int64_t N = kAttentionTokens, triangles = shape.batch * kHeads;
    const Tensor qkv = take(type, N, shape.qkv_width()), dqkv = take(type, N, shape.qkv_width());
    const Tensor o = take(type, N, shape.q_width()), lse = take(Dtype::kF32, triangles, seq_len);
    add(
        attention_key("forward", head_dim, type),
        [=, this] { ops->attention_forward(o, lse, qkv, shape); }, static_cast<double>(triangles));
    add(
        attention_key("backward", head_dim, type),
        [=, this] { ops->attention_backward(dqkv, o, qkv, o, lse, shape); },
        static_cast<double>(triangles));
  }
}

void CpuProbe::Kernels::add_elements(Dtype type, const ModelConfig& model) {
  // Tensors that the second cache does not hold, and the third does, four of them together.
  const int64_t C = kWidth;
  const int64_t N = std::min(kTensorBytes, l3_bytes / 8) / (C * size_bytes(type));
  const double elements = static_cast<double>(N * C);
  const Tensor x = take(type, N, C), y = take(type, N, C);
  // What a forward pass leaves for the backward one goes to memory, and comes from there.
  const int64_t kept_sets = std::max<int64_t>(2, 2 * l3_bytes / (N * C * size_bytes(type)));
  const Tensor kept = take(type, kept_sets * N, C);
  const auto set = std::make_shared<int64_t>(0);
  const auto next_kept = [=](int64_t cols) {  // [N, cols], another one every time
    const int64_t n = cols / C * N;
    return kept.row_range(++*set % (kept.rows / n) * n, n).reshape(N, cols);
  };
  const Tensor delta = take(type, N, C), w = take(type, 1, C), dw = take(Dtype::kF32, 1, C);
  const Tensor rstd = take(Dtype::kF32, 1, N), average = take(Dtype::kF32, 1, N);
  const auto yes = Accumulate::kYes, no = Accumulate::kNo;
  constexpr float kEps = 1e-5f;
  if (model.norm == NormKind::kRms) {
    add(ElementOp::kNormForward, type, elements, [=, this] {
      ops->residual_rmsnorm_forward(next_kept(C), next_kept(C), rstd, x, delta, w, kEps);
    });
    add(ElementOp::kNormBackward, type, elements,
        [=, this] { ops->rmsnorm_backward(delta, dw, y, next_kept(C), w, rstd, yes, no); });
  } else {
    add(ElementOp::kNormForward, type, elements, [=, this] {
      ops->residual_layernorm_forward(next_kept(C), next_kept(C), average, rstd, x, delta, w, w,
                                      kEps);
    });
    add(ElementOp::kNormBackward, type, elements, [=, this] {
      ops->layernorm_backward(delta, dw, dw, y, next_kept(C), w, average, rstd, yes, no);
    });
  }
  const ops::Activation kind = model.activation;
  const int64_t up = kind == ops::Activation::kSwiglu ? 2 * C : C;
  const Tensor in = take(type, N, up), d_in = take(type, N, up);
  add(ElementOp::kActivationForward, type, elements,
      [=, this] { ops->activation_forward(next_kept(C), in, kind); });
  add(ElementOp::kActivationBackward, type, elements,
      [=, this] { ops->activation_backward(d_in, y, next_kept(up), kind); });
  add(ElementOp::kBiasBackward, type, elements, [=, this] { ops->bias_backward(dw, x, no); });

  const Tensor tokens = take(Dtype::kI32, 1, N), table = take(type, kVocabulary, C);
  std::vector<int32_t> rows(static_cast<size_t>(N));
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<int32_t>(i * 2654435761U % kVocabulary);  // scattered
  }
  ops->upload(tokens, rows.data());
  const Tensor d_table = take(Dtype::kF32, kVocabulary, C);
  add(ElementOp::kEmbedForward, type, elements,
      [=, this] { ops->embedding_forward(x, tokens, table, 0, {}, N, 0); });
  add(ElementOp::kEmbedBackward, type, elements,
      [=, this] { ops->embedding_backward(d_table, 0, {}, x, tokens, N, no); });

  // Two heads of queries to one of keys and one of values: three quarters of the columns turn.
  const AttentionShape shape{
      .batch = 1, .seq_len = N, .n_heads = C / 128, .n_kv_heads = C / 256, .head_dim = 64};
  const double qk = static_cast<double>(N * (shape.q_width() + shape.kv_width()));
  const Tensor angles = take(Dtype::kF32, N, shape.head_dim);
  const Tensor head_w = take(type, 1, shape.head_dim), d_head_w = take(Dtype::kF32, 1, 64);
  const Tensor head_rstd = take(Dtype::kF32, N, shape.n_heads + shape.n_kv_heads);
  add(ElementOp::kRope, type, qk,
      [=, this] { ops->rope(x, angles, shape, 0, ops::Direction::kForward); });
  add(ElementOp::kQkNormForward, type, qk,
      [=, this] { ops->qk_norm_forward(y, head_rstd, x, head_w, head_w, shape, kEps); });
  add(ElementOp::kQkNormBackward, type, qk, [=, this] {
    ops->qk_norm_backward(y, d_head_w, d_head_w, x, head_w, head_w, head_rstd, shape, no);
  });

  const int64_t n_rows = N * C / kVocabulary;
  const Tensor logits = x.reshape(n_rows, kVocabulary), losses = rstd.col_range(0, n_rows);
  const Tensor targets = tokens.col_range(0, n_rows);
  add(ElementOp::kCrossEntropy, type, elements,
      [=, this] { ops->cross_entropy_backward(losses, logits, targets, kVocabulary, 1.0f); });
  const Tensor one = x.row_range(0, 1).col_range(0, 16);
  add_launch(key("launch", type),
             [=, this] { ops->activation_forward(one, one, ops::Activation::kRelu2); });
}

// Beyond the caches, as parameters are.
void CpuProbe::Kernels::add_parameters(Dtype type) {
  const int64_t chunk = ops::kReduceChunk;
  const int64_t n =
      std::max<int64_t>(1, l3_bytes / 4 / chunk) * chunk;  // a tensor: the cache's size
  const double count = static_cast<double>(n);
  const auto vector = [&](Dtype dtype) { return take(dtype, 1, n); };
  const Tensor master = vector(Dtype::kF32), m = vector(Dtype::kF32), v = vector(Dtype::kF32);
  const Tensor grad = vector(Dtype::kF32), sums = take(Dtype::kF32, 1, n / chunk);
  const Tensor w = type == Dtype::kF32 ? master : vector(type);
  const Tensor factor = take(Dtype::kF32, 1, 1);
  add(ElementOp::kSquares, type, count, [=, this] { ops->square_sums(sums, grad); });
  add(ElementOp::kUpdate, type, count,
      [=, this] { ops->adamw(w, master, m, v, grad, factor, {.lr = 1e-4f}); });
  add(ElementOp::kAdd, type, count, [=, this] { ops->add(m, m, grad); });
  add(
      key("triad", type),
      [=] { ops::triad(m.as<float>(), v.as<float>(), grad.as<float>(), 3.0f, n); }, 12 * count);
}

TypeCosts CpuProbe::Kernels::costs(Dtype type) const {
  TypeCosts costs;
  for (size_t pass = 0; pass < kPasses.size(); ++pass) {
    const auto measured = [&](int64_t size) {
      return MeasuredProduct{.flops = 2 * cube(size),
                             .bytes = product_bytes(kPasses[pass], size, type),
                             .seconds = median(product_key(kPasses[pass], size, type))};
    };
    costs.products[pass] = product_cost(measured(kSmallProduct), measured(kLargeProduct),
                                        measured(kNoProduct).seconds);
  }
  const auto attention = [&](std::string_view direction) {
    std::array<MeasuredAttention, kAttentions.size()> measured;
    for (size_t i = 0; i < measured.size(); ++i) {
      const auto& [seq_len, head_dim] = kAttentions[i];
      measured[i] = {seq_len, head_dim, median(attention_key(direction, head_dim, type))};
    }
    return attention_cost(measured[0], measured[1], measured[2]);
  };
  costs.attention_forward = attention("forward");
  costs.attention_backward = attention("backward");
  for (size_t op = 0; op < kElementOps; ++op) {
    costs.element_s[op] = median(key(static_cast<ElementOp>(op), type));
  }
  return costs;
}

CpuProbe::CpuProbe(const ModelConfig& model, const std::vector<Dtype>& types)
    : kernels_(std::make_unique<Kernels>()) {
  Kernels& k = *kernels_;
  k.types = types;
  if (const int64_t l3 = read_machine().l3_bytes; l3 > 0) k.l3_bytes = std::min(l3, kLargestL3);
  for (const Dtype type : types) {
    k.add_products(type);
    k.add_attention(type);
    k.add_elements(type, model);
    k.add_parameters(type);
  }
  for (auto& [name, kernel] : k.kernels) kernel.run();  // plans are made, pages touched
}

CpuProbe::~CpuProbe() = default;

void CpuProbe::round() {
  for (auto& [name, kernel] : kernels_->kernels) {
    const Clock::time_point begin = Clock::now();
    std::vector<double> turns;
    for (Clock::time_point to = begin; turns.size() < kLeastTurns || to < begin + kRound;) {
      kernel.ahead();
      const Clock::time_point from = Clock::now();
      kernel.run();
      to = Clock::now();
      turns.push_back(std::chrono::duration<double>(to - from).count());
    }
    kernel.seconds.push_back(quantile(turns, 0.5) / kernel.amount);
  }
}

CpuCosts CpuProbe::costs() const {
  const Kernels& k = *kernels_;
  CpuCosts costs;
  for (const Dtype type : k.types) {
    (type == Dtype::kF32 ? costs.fp32 : costs.bf16) = k.costs(type);
  }
  costs.launch_s = k.median(key("launch", k.types[0]));
  // Between two uses of a tensor others of its size pass through the cache.
  costs.cache_bytes = static_cast<double>(k.l3_bytes) / 4;
  costs.memory_bytes_per_s = 1 / k.median(key("triad", k.types[0]));
  return costs;
}

}  // namespace qstep::trainer
