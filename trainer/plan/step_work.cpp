#include "trainer/plan/step_work.h"

#include <algorithm>

#include "ops/native_form.h"
#include "trainer/model/linear_operands.h"
#include "trainer/model/weights.h"
#include "trainer/step/gradient_sum.h"

namespace qstep::trainer {

using precision::AmaxScope;
using precision::kGemms;
using precision::kOperandsOf;
using precision::OperandTable;
using precision::QuantFormat;
using precision::QuantSpec;

namespace {

double product_of(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

// The phase of the recipe that most steps are in.
const PrecisionPhase& longest(const PrecisionPlan& plan, int64_t n_steps) {
  const auto length = [&](size_t i) {
    const int64_t end = i + 1 < plan.phases.size() ? plan.phases[i + 1].first_step : n_steps + 1;
    return end - plan.phases[i].first_step;
  };
  size_t best = 0;
  for (size_t i = 1; i < plan.phases.size(); ++i) {
    if (length(i) > length(best)) best = i;
  }
  return plan.phases[best];
}

// Layers of one kind with the same operands.
struct LayerGroup {
  LinearKind kind;
  OperandTable table;
  int64_t n_layers = 0;
};

std::vector<LayerGroup> layer_groups(const Config& config, const PrecisionPhase& phase) {
  const std::vector<OperandTable>& tables = phase.tables;
  std::vector<LayerGroup> groups;
  for (int64_t module = 0; module < n_modules(config.model); ++module) {
    const auto kind = static_cast<LinearKind>(module % kLinearsPerBlock);
    const OperandTable& table = tables[static_cast<size_t>(module)];
    const auto same = [&](const LayerGroup& g) { return g.kind == kind && g.table == table; };
    const auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end()) {
      groups.push_back({kind, table, 1});
    } else {
      found->n_layers += 1;
    }
  }
  return groups;
}

// An amax over the tensor or over delayed steps is one number; a row's or a block's comes with the
// pass that quantizes it. made: the tensor comes with its amax, for the quantizers that take it.
bool needs_amax_first(const QuantSpec& spec, bool made) {
  return precision::has_tensor_scale(spec) && spec.amax == AmaxScope::kTensor &&
         !precision::is_mx_format(spec.format) && !(made && precision::takes_known_amax(spec));
}

class Counter {
 public:
  Counter(const Config& config, int n_ranks)
      : config_(config), model_(tensor_share(config.model, config.parallel.tensor)) {
    const int64_t tensor = config.parallel.tensor;
    w_.ranks = n_ranks;
    w_.tensor = static_cast<int>(tensor);
    w_.data = n_ranks / w_.tensor;
    w_.micros = static_cast<double>(config.train.micros_per_step()) / w_.data;
    w_.tokens = config.train.micro_batch * config.train.seq_len;
    w_.step_tokens = product_of(config.train.global_batch, config.train.seq_len);
    const bool fp32 = config.compute_dtype() == ops::Dtype::kF32;
    w_.compute = fp32 ? ProductFormat::kFp32 : ProductFormat::kBf16;
    w_.element_bytes = fp32 ? 4 : 2;
    w_.seq_len = config.train.seq_len;
    w_.head_dim = model_.head_dim;
  }

  StepWork count(const PrecisionPhase& phase) {
    count_parameters();
    for (const LayerGroup& group : layer_groups(config_, phase)) count_linear(group);
    count_head();
    count_attention();
    count_elementwise();
    count_update();
    const double rank_tokens = w_.step_tokens / w_.ranks;
    w_.causal_flops =
        rank_tokens * flops_per_token(config_.model, w_.seq_len, AttentionCount::kCausal);
    w_.full_flops = rank_tokens * flops_per_token(config_.model, w_.seq_len, AttentionCount::kFull);
    return std::move(w_);
  }

 private:
  void count_parameters() {
    for (const WeightSpec& weight : weight_list(model_)) {
      const bool vocabulary = weight.name.find("wte") != std::string::npos ||
                              weight.name.find("head") != std::string::npos;
      const double n = product_of(weight.rows, weight.cols) / (vocabulary ? w_.tensor : 1);
      w_.parameters += n;
      const bool embedding = weight.name.find("wte") != std::string::npos ||
                             weight.name.find("wpe") != std::string::npos;
      if (embedding) w_.embedding_parameters += n;
    }
    const bool sharded = config_.parallel.optimizer == OptimizerState::kSharded;
    w_.owned_parameters = w_.parameters / (sharded ? w_.data : 1);
  }

  // Of an FP32 weight gradient: read as well where it is added to.
  double gradient_bytes(int64_t out, int64_t in) const {
    const bool adds = config_.parallel.reduction == Reduction::kRank;
    const double times = adds ? 1 + (w_.micros - 1) / w_.micros : 1;
    return 4 * times * product_of(out, in);
  }

  void add_product(std::string_view op, const LinearShape& shape, const OperandTable& table,
                   double n_layers, StepPart forward, StepPart backward) {
    const int64_t N = w_.tokens;
    const double e = w_.element_bytes;
    const auto add = [&](size_t gemm, int64_t m, int64_t n, int64_t k, StepPart part,
                         double output) {
      w_.products.push_back({.op = op,
                             .pass = kGemms[gemm].name,
                             .part = part,
                             .m = m,
                             .n = n,
                             .k = k,
                             .left = table[kGemms[gemm].left],
                             .right = table[kGemms[gemm].right],
                             .count = n_layers * w_.micros,
                             .output_bytes = output});
    };
    add(0, N, shape.out, shape.in, forward, e * product_of(N, shape.out));
    add(1, N, shape.in, shape.out, backward, e * product_of(N, shape.in));
    add(2, shape.out, shape.in, N, backward, gradient_bytes(shape.out, shape.in));
  }

  void count_linear(const LayerGroup& group) {
    const LinearShape shape = linear_shape(model_, group.kind);
    const std::string_view op = kLinearNames[static_cast<size_t>(group.kind)];
    const auto n = static_cast<double>(group.n_layers);
    add_product(op, shape, group.table, n, StepPart::kForward, StepPart::kBackward);
    const auto quantize = [&](size_t tensor, int64_t rows, int64_t cols, StepPart part,
                              double count) {
      const QuantSpec& row = group.table[kOperandsOf[tensor].row];
      const QuantSpec& column = group.table[kOperandsOf[tensor].column];
      if (!row.quantized() && !column.quantized()) return;
      const auto operands_of = static_cast<precision::LinearTensor>(tensor);
      // A tensor-parallel rank makes a part of it.
      const bool made = w_.tensor == 1 && made_with_amax(group.kind, operands_of);
      w_.quantizations.push_back(
          {.op = op,
           .tensor = precision::kLinearTensorNames[tensor],
           .part = part,
           .rows = rows,
           .cols = cols,
           .operands_of = operands_of,
           .table = group.table,
           .rowwise = row,
           .columnwise = column,
           .reads = needs_amax_first(row, made) || needs_amax_first(column, made) ? 2 : 1,
           .source_bytes = w_.element_bytes,
           .count = count});
    };
    quantize(0, w_.tokens, shape.in, StepPart::kForward, n * w_.micros);
    quantize(1, shape.out, shape.in, StepPart::kForward, n);  // once for all micro-batches
    quantize(2, w_.tokens, shape.out, StepPart::kBackward, n * w_.micros);
  }

  void count_head() {
    const int64_t columns = config_.model.padded_vocab() / w_.tensor;
    add_product("head", {.out = columns, .in = model_.width}, {}, 1, StepPart::kHead,
                StepPart::kHead);
    // Cross-entropy: the maximum and the sum in one read, the gradient in another and one write.
    const double logits = product_of(w_.tokens, columns);
    add_pass("head_loss", StepPart::kHead, ElementOp::kCrossEntropy, logits,
             3 * w_.element_bytes * logits, 2);
  }

  void count_attention() {
    const double layers = static_cast<double>(model_.n_layers) * w_.micros;
    const double N = static_cast<double>(w_.tokens);
    const double q = static_cast<double>(model_.q_width());
    const double qkv = static_cast<double>(model_.qkv_width());
    // q k^T and p v over (T + 1) / 2 keys on average; backward is twice that (the model's flops:
    // that scores are computed again counts as time, in the attained share).
    w_.attention_forward_flops = layers * N * 2 * q * static_cast<double>(w_.seq_len + 1);
    w_.attention_backward_flops = 2 * w_.attention_forward_flops;
    w_.attention_forward_bytes = layers * N * w_.element_bytes * (qkv + q);
    w_.attention_backward_bytes = layers * N * w_.element_bytes * (2 * qkv + 2 * q);
    w_.attention_calls = layers;
    w_.attention_triangles =
        layers * static_cast<double>(model_.n_heads * config_.train.micro_batch);
  }

  // Per micro-batch.
  void add_pass(std::string_view phase, StepPart part, ElementOp op, double elements, double bytes,
                double launches) {
    const double micros = w_.micros;
    w_.passes.push_back({phase, part, op, elements * micros, bytes * micros, launches * micros});
  }

  void count_elementwise() {
    const double e = w_.element_bytes, N = static_cast<double>(w_.tokens);
    const double C = static_cast<double>(model_.width), own = N / w_.tensor;
    const double L = static_cast<double>(model_.n_layers);
    const double up = static_cast<double>(model_.up_width());
    const double ffn = static_cast<double>(model_.ffn_width);
    const double qkv = static_cast<double>(model_.qkv_width());
    const double qk = static_cast<double>((model_.n_heads + model_.n_kv_heads) * model_.head_dim);
    // Rows of the table read and written; backward adds to FP32 rows.
    using enum ElementOp;
    add_pass("embed", StepPart::kForward, kEmbedForward, C * N, 2 * e * C * N, 1);
    add_pass("embed", StepPart::kBackward, kEmbedBackward, C * N, (e + 8) * C * N, 1);
    // Bytes of all layers in elements.
    const auto forward = [&](ElementOp op, double elements, double moved, double launches) {
      add_pass("norm_elem", StepPart::kForward, op, elements, e * moved, launches);
    };
    const auto backward = [&](ElementOp op, double elements, double moved, double launches) {
      add_pass("norm_elem", StepPart::kBackward, op, elements, e * moved, launches);
    };
    // Residual and norm: x, delta in; sum, y out. Backward: dy, x, the stream's gradient in and
    // out; none comes in at the last norm.
    const double norms = 2 * L + 1;
    forward(kNormForward, norms * C * own, norms * 4 * C * own, norms);
    backward(kNormBackward, norms * C * own, (norms * 4 - 1) * C * own, norms);
    forward(kActivationForward, L * ffn * N, L * (up + ffn) * N, L);
    backward(kActivationBackward, L * ffn * N, L * (2 * up + ffn) * N, L);
    if (model_.position == PositionKind::kRope) {
      forward(kRope, L * qk * N, 2 * L * qk * N, L);
      backward(kRope, L * qk * N, 2 * L * qk * N, L);
    }
    if (model_.qk_norm) {
      forward(kQkNormForward, L * qk * N, 2 * L * qkv * N, L);
      backward(kQkNormBackward, L * qk * N, 3 * L * qkv * N, L);
    }
    if (model_.bias) {
      const double outputs = L * (qkv + up + 2 * C / w_.tensor) * N;
      backward(kBiasBackward, outputs, outputs, 4 * L);
    }
    // The tree of micro-batches' gradients. An addition of two, which is what the machine was
    // measured with, moves 12 bytes per element.
    const GradientSum::Passes tree =
        GradientSum::passes(config_.parallel.reduction, static_cast<int64_t>(w_.micros));
    if (tree.n > 0) {
      const double bytes = w_.parameters * static_cast<double>(tree.bytes_per_element);
      w_.passes.push_back(
          {"other", StepPart::kBackward, kAdd, bytes / 12, bytes, static_cast<double>(tree.n)});
    }
  }

  // Squares of the owned FP32 gradients; AdamW reads gradient, master weight and two moments,
  // writes three of them and the weight.
  void count_update() {
    const double buckets = static_cast<double>(model_.n_layers + 2);
    const double n = w_.owned_parameters;
    w_.passes.push_back({"clip", StepPart::kUpdate, ElementOp::kSquares, n, 4 * n, buckets});
    const double weight = w_.compute == ProductFormat::kFp32 ? 0 : w_.element_bytes;
    w_.passes.push_back(
        {"optim", StepPart::kUpdate, ElementOp::kUpdate, n, (28 + weight) * n, buckets});
  }

  const Config& config_;
  const ModelConfig model_;  // this rank's share
  StepWork w_;
};

}  // namespace

double bytes_per_element(const QuantSpec& spec, double compute_bytes) {
  switch (spec.format) {
    case QuantFormat::kBf16:
      return compute_bytes;
    case QuantFormat::kNvfp4:
      return 0.5 + 1.0 / 16;
    case QuantFormat::kMxfp4:
      return 0.5 + 1.0 / 32;
    case QuantFormat::kMxfp8E4m3:
    case QuantFormat::kMxfp8E5m2:
      return 1 + 1.0 / 32;
    case QuantFormat::kFp8E4m3:
    case QuantFormat::kFp8E5m2:
      return spec.block.rows == 1 ? 1 + 4.0 / 128 : 1;
  }
  return compute_bytes;
}

double product_bytes(const ProductWork& work, double compute_bytes, bool decoded) {
  const auto operand = [&](int64_t rows, const QuantSpec& spec) {
    return product_of(rows, work.k) *
           (decoded ? compute_bytes : bytes_per_element(spec, compute_bytes));
  };
  return operand(work.m, work.left) + operand(work.n, work.right) + work.output_bytes;
}

PassBytes quantize_bytes(const QuantizeWork& work, const MachineModel& machine,
                         ProductFormat compute) {
  const TensorOperands& uses = kOperandsOf[static_cast<size_t>(work.operands_of)];
  const auto native = [&](size_t gemm) {
    const QuantSpec &left = work.table[kGemms[gemm].left], &right = work.table[kGemms[gemm].right];
    const RunsAs runs = runs_as(machine, left, right, compute);
    return !runs.emulated && ops::native_form(left) && ops::native_form(right);
  };
  StoredOperands stored = stored_operands(work.table, work.operands_of, native(uses.row_gemm),
                                          native(uses.column_gemm));
  if (stored.one_copy) stored.columnwise.values = false;
  const auto bytes = [&](const QuantSpec& spec, ops::Orientation orientation, ops::Stored what) {
    if (!spec.quantized()) return 0.0;
    ops::Arena measure;
    const ops::QuantizedTensor q =
        ops::lay_out_quantized(measure, "", spec, orientation, work.rows, work.cols, what);
    return static_cast<double>((what.values ? q.values.bytes() : 0) + q.codes.bytes() +
                               q.block_scales.bytes() + q.tile_scales.bytes());
  };
  return {.read = work.elements() * work.source_bytes * work.reads,
          .written = bytes(work.rowwise, ops::Orientation::kRowwise, stored.rowwise) +
                     bytes(work.columnwise, ops::Orientation::kColumnwise, stored.columnwise)};
}

StepWork step_work(const Config& config, int n_ranks, const PrecisionPhase& phase) {
  return Counter(config, n_ranks).count(phase);
}

StepWork step_work(const Config& config, int n_ranks) {
  return step_work(config, n_ranks, longest(plan_precision(config), config.train.steps));
}

}  // namespace qstep::trainer
