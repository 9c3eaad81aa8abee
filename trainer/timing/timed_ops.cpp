#include "trainer/timing/timed_ops.h"

#include "trainer/timing/labels.h"

namespace qstep::trainer {

using ops::Accumulate;
using ops::Activation;
using ops::AdamWParams;
using ops::AttentionShape;
using ops::Direction;
using ops::Operand;
using ops::QuantCall;
using ops::QuantizedTensor;
using ops::Tensor;

namespace {

GemmFormat format_of(const Operand& x) {
  return x.dtype == ops::Dtype::kF32 ? GemmFormat::kFp32 : gemm_format(x.format);
}

// Bits of an element, to order formats.
int width(GemmFormat format) {
  switch (format) {
    case GemmFormat::kFp32:
      return 32;
    case GemmFormat::kBf16:
      return 16;
    case GemmFormat::kNvfp4:
    case GemmFormat::kMxfp4:
      return 4;
    case GemmFormat::kMxfp8E4m3:
    case GemmFormat::kMxfp8E5m2:
    case GemmFormat::kFp8E4m3:
    case GemmFormat::kFp8E5m2:
      break;
  }
  return 8;
}

// The operand with the wider elements decides which multipliers a GEMM needs.
Category gemm_category(std::string_view label, const GemmCall& gemm) {
  if (label.starts_with(kHeadLabel)) return Category::kHeadLoss;
  const GemmFormat wider = width(gemm.b) > width(gemm.a) ? gemm.b : gemm.a;
  return static_cast<Category>(static_cast<int>(Category::kGemmFp32) + static_cast<int>(wider));
}

}  // namespace

// Of calls that say nothing of what they are for.
Category TimedOps::element_wise() const {
  if (timeline_.label() == kEmbedLabel) return Category::kEmbed;
  if (timeline_.label() == kGradientSumLabel) return Category::kOptim;
  switch (timeline_.phase()) {
    case Phase::kForward:
    case Phase::kBackward:
      return Category::kNormElem;
    case Phase::kOptimizer:
      return Category::kOptim;
    case Phase::kData:
    case Phase::kComm:
    case Phase::kOther:
      break;
  }
  return Category::kOther;
}

void TimedOps::gemm(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                    Accumulate accumulate, const Tensor& bias) {
  if (!timeline_.notes_calls()) return inner_.gemm(d, a, b, alpha, accumulate, bias);
  const GemmCall gemm{.m = a.rows,
                      .n = b.rows,
                      .k = a.k,
                      .a = format_of(a),
                      .b = format_of(b),
                      .native = a.codes != nullptr && b.codes != nullptr};
  const Timeline::Stamp begin = timeline_.begin_call();
  inner_.gemm(d, a, b, alpha, accumulate, bias);
  timeline_.end_call(begin, gemm_category(timeline_.label(), gemm), "gemm", gemm);
  log([&] { return gemm_work(d, a, b, accumulate, bias); });
}

void TimedOps::upload(const Tensor& dst, const void* host) {
  timed(
      Category::kOther, "upload",
      [&] {
        return passes({dst, dst});
      },
      [&] { inner_.upload(dst, host); });
}

void TimedOps::download(void* host, const Tensor& src) {
  timed(
      Category::kOther, "download",
      [&] {
        return passes({src, src});
      },
      [&] { inner_.download(host, src); });
}

void TimedOps::download_all(std::span<const ops::HostCopy> copies) {
  timed(
      Category::kOther, "download",
      [&] {
        OpWork work;
        for (const ops::HostCopy& copy : copies) work = work + passes({copy.src, copy.src});
        return work;
      },
      [&] { inner_.download_all(copies); });
}

void TimedOps::zero(const Tensor& x) {
  timed(
      element_wise(), "zero", [&] { return passes({x}); }, [&] { inner_.zero(x); });
}

void TimedOps::cast(const Tensor& y, const Tensor& x) {
  timed(
      element_wise(), "cast",
      [&] {
        return passes({y, x});
      },
      [&] { inner_.cast(y, x); });
}

void TimedOps::add(const Tensor& y, std::span<const Tensor> x) {
  timed(
      element_wise(), "add", [&] { return add_work(y, x); }, [&] { inner_.add(y, x); });
}

void TimedOps::quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise,
                        const Tensor& x, const QuantCall& call) {
  timed(
      Category::kQuant, "quantize", [&] { return quantize_work(rowwise, columnwise, x); },
      [&] { inner_.quantize(rowwise, columnwise, x, call); });
}

void TimedOps::update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                                     const Tensor& fp8_max, const Tensor& factor,
                                     const precision::DelayedScaling& delayed) {
  timed(
      Category::kQuant, "update_delayed_scales",
      [&] {
        return passes({history, history, scale, amax, amax, fp8_max, factor});
      },
      [&] { inner_.update_delayed_scales(history, scale, amax, fp8_max, factor, delayed); });
}

void TimedOps::bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate) {
  timed(
      Category::kNormElem, "bias_backward", [&] { return gradient(db, accumulate) + passes({dy}); },
      [&] { inner_.bias_backward(db, dy, accumulate); });
}

void TimedOps::embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                                 int64_t first_token, const Tensor& wpe, int64_t seq_len,
                                 int64_t first_position) {
  timed(
      Category::kEmbed, "embedding_forward",
      [&] { return embedding_forward_work(x, tokens, wte, wpe, seq_len); },
      [&] { inner_.embedding_forward(x, tokens, wte, first_token, wpe, seq_len, first_position); });
}

void TimedOps::embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                                  const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                                  Accumulate dwpe_mode) {
  timed(
      Category::kEmbed, "embedding_backward",
      [&] { return embedding_backward_work(dwte, dwpe, dx, tokens, seq_len, dwpe_mode); },
      [&] { inner_.embedding_backward(dwte, first_token, dwpe, dx, tokens, seq_len, dwpe_mode); });
}

void TimedOps::rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x,
                               const Tensor& w, float eps, const Tensor& amax) {
  timed(
      Category::kNormElem, "rmsnorm_forward",
      [&] {
        return passes({y, rstd, x, w, amax});
      },
      [&] { inner_.rmsnorm_forward(y, rstd, x, w, eps, amax); });
}

void TimedOps::residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                        const Tensor& x, const Tensor& delta, const Tensor& w,
                                        float eps, const Tensor& amax) {
  timed(
      Category::kNormElem, "residual_rmsnorm_forward",
      [&] {
        return passes({sum, y, rstd, x, delta, w, amax});
      },
      [&] { inner_.residual_rmsnorm_forward(sum, y, rstd, x, delta, w, eps, amax); });
}

void TimedOps::rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy,
                                const Tensor& x, const Tensor& w, const Tensor& rstd,
                                Accumulate dx_mode, Accumulate dw_mode, const Tensor& amax) {
  timed(
      Category::kNormElem, "rmsnorm_backward",
      [&] {
        return gradient(dx, dx_mode) + gradient(dw, dw_mode) + passes({dy, x, w, rstd, amax});
      },
      [&] { inner_.rmsnorm_backward(dx, dw, dy, x, w, rstd, dx_mode, dw_mode, amax); });
}

void TimedOps::layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd,
                                 const Tensor& x, const Tensor& w, const Tensor& b, float eps,
                                 const Tensor& amax) {
  timed(
      Category::kNormElem, "layernorm_forward",
      [&] {
        return passes({y, mean, rstd, x, w, b, amax});
      },
      [&] { inner_.layernorm_forward(y, mean, rstd, x, w, b, eps, amax); });
}

void TimedOps::residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                          const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                          const Tensor& w, const Tensor& b, float eps,
                                          const Tensor& amax) {
  timed(
      Category::kNormElem, "residual_layernorm_forward",
      [&] {
        return passes({sum, y, mean, rstd, x, delta, w, b, amax});
      },
      [&] { inner_.residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b, eps, amax); });
}

void TimedOps::layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db,
                                  const Tensor& dy, const Tensor& x, const Tensor& w,
                                  const Tensor& mean, const Tensor& rstd, Accumulate dx_mode,
                                  Accumulate dw_mode, const Tensor& amax) {
  timed(
      Category::kNormElem, "layernorm_backward",
      [&] {
        return gradient(dx, dx_mode) + gradient(dw, dw_mode) + gradient(db, dw_mode) +
               passes({dy, x, w, mean, rstd, amax});
      },
      [&] { inner_.layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, dx_mode, dw_mode, amax); });
}

void TimedOps::qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv,
                               const Tensor& wq, const Tensor& wk, const AttentionShape& shape,
                               float eps) {
  timed(
      Category::kNormElem, "qk_norm_forward",
      [&] { return qk_norm_forward_work(y, rstd, qkv, wq, wk); },
      [&] { inner_.qk_norm_forward(y, rstd, qkv, wq, wk, shape, eps); });
}

void TimedOps::qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk,
                                const Tensor& qkv, const Tensor& wq, const Tensor& wk,
                                const Tensor& rstd, const AttentionShape& shape,
                                Accumulate dw_mode) {
  timed(
      Category::kNormElem, "qk_norm_backward",
      [&] { return qk_norm_backward_work(dwq, dwk, qkv, rstd, shape, dw_mode); },
      [&] { inner_.qk_norm_backward(dqkv, dwq, dwk, qkv, wq, wk, rstd, shape, dw_mode); });
}

void TimedOps::rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
                    int64_t first_position, Direction direction) {
  timed(
      Category::kNormElem, "rope", [&] { return rope_work(qkv, table, shape); },
      [&] { inner_.rope(qkv, table, shape, first_position, direction); });
}

void TimedOps::attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                                 const AttentionShape& shape) {
  timed(
      Category::kAttn, "attention_forward",
      [&] { return attention_forward_work(o, lse, qkv, shape); },
      [&] { inner_.attention_forward(o, lse, qkv, shape); });
}

void TimedOps::attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv,
                                  const Tensor& o, const Tensor& lse, const AttentionShape& shape) {
  timed(
      Category::kAttn, "attention_backward",
      [&] { return attention_backward_work(dqkv, d_o, qkv, o, lse, shape); },
      [&] { inner_.attention_backward(dqkv, d_o, qkv, o, lse, shape); });
}

void TimedOps::attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                                const Tensor& qkv, const AttentionShape& shape,
                                int64_t first_position) {
  timed(
      Category::kAttn, "attention_cached",
      [&] { return attention_cached_work(o, qkv, shape, first_position); },
      [&] { inner_.attention_cached(o, k_cache, v_cache, qkv, shape, first_position); });
}

void TimedOps::activation_forward(const Tensor& y, const Tensor& x, Activation kind,
                                  const Tensor& amax) {
  timed(
      Category::kNormElem, "activation_forward",
      [&] {
        return passes({y, x, amax});
      },
      [&] { inner_.activation_forward(y, x, kind, amax); });
}

void TimedOps::activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x,
                                   Activation kind, const Tensor& amax) {
  timed(
      Category::kNormElem, "activation_backward",
      [&] {
        return passes({dx, dy, x, amax});
      },
      [&] { inner_.activation_backward(dx, dy, x, kind, amax); });
}

void TimedOps::cross_entropy_forward(const Tensor& loss, const Tensor& logits,
                                     const Tensor& targets, int64_t vocab) {
  timed(
      Category::kHeadLoss, "cross_entropy_forward",
      [&] {
        return passes({loss, logits, targets});
      },
      [&] { inner_.cross_entropy_forward(loss, logits, targets, vocab); });
}

void TimedOps::cross_entropy_backward(const Tensor& loss, const Tensor& logits,
                                      const Tensor& targets, int64_t vocab, float scale) {
  timed(
      Category::kHeadLoss, "cross_entropy_backward",
      [&] {
        return passes({loss, logits, logits, targets});
      },
      [&] { inner_.cross_entropy_backward(loss, logits, targets, vocab, scale); });
}

void TimedOps::cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                                  int64_t first_token, int64_t vocab) {
  timed(
      Category::kHeadLoss, "cross_entropy_part",
      [&] {
        return passes({part, logits, targets});
      },
      [&] { inner_.cross_entropy_part(part, logits, targets, first_token, vocab); });
}

void TimedOps::cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) {
  timed(
      Category::kHeadLoss, "cross_entropy_join",
      [&] {
        return passes({loss, lse, parts});
      },
      [&] { inner_.cross_entropy_join(loss, lse, parts); });
}

void TimedOps::cross_entropy_part_backward(const Tensor& logits, const Tensor& lse,
                                           const Tensor& targets, int64_t first_token,
                                           int64_t vocab, float scale) {
  timed(
      Category::kHeadLoss, "cross_entropy_part_backward",
      [&] {
        return passes({logits, logits, lse, targets});
      },
      [&] { inner_.cross_entropy_part_backward(logits, lse, targets, first_token, vocab, scale); });
}

void TimedOps::mean(const Tensor& out, const Tensor& x) {
  timed(
      Category::kHeadLoss, "mean",
      [&] {
        return passes({out, x});
      },
      [&] { inner_.mean(out, x); });
}

void TimedOps::square_sums(const Tensor& sums, const Tensor& g) {
  timed(
      Category::kClip, "square_sums",
      [&] {
        return passes({sums, g});
      },
      [&] { inner_.square_sums(sums, g); });
}

void TimedOps::norm_of_sums(const Tensor& norm, const Tensor& sums) {
  timed(
      Category::kClip, "norm_of_sums",
      [&] {
        return passes({norm, sums});
      },
      [&] { inner_.norm_of_sums(norm, sums); });
}

void TimedOps::clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss,
                           float max_norm) {
  timed(
      Category::kClip, "clip_factor",
      [&] {
        return passes({factor, norm, loss});
      },
      [&] { inner_.clip_factor(factor, norm, loss, max_norm); });
}

void TimedOps::adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
                     const Tensor& grad, const Tensor& factor, const AdamWParams& params) {
  timed(
      Category::kOptim, "adamw", [&] { return adamw_work(w, master, m, v, grad); },
      [&] { inner_.adamw(w, master, m, v, grad, factor, params); });
}

}  // namespace qstep::trainer
