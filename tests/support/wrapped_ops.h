// A CPU backend with something around each of its calls: a base of backends that behave as a GPU's
// in one respect.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include "ops/ops.h"

namespace qstep::test {

class WrappedOps : public ops::Ops {
 public:
  using Tensor = ops::Tensor;
  using Operand = ops::Operand;
  using Accumulate = ops::Accumulate;

  bool in_host_memory() const override { return false; }

  void gemm(const Tensor& d, const Operand& a, const Operand& b, float alpha, Accumulate accumulate,
            const Tensor& bias) override {
    run("gemm", [&] { inner_->gemm(d, a, b, alpha, accumulate, bias); });
  }
  void upload(const Tensor& dst, const void* host) override {
    run("upload", [&] { inner_->upload(dst, host); });
  }
  void download(void* host, const Tensor& src) override {
    run("download", [&] { inner_->download(host, src); });
  }
  void download_all(std::span<const ops::HostCopy> copies) override {
    run("download_all", [&] { inner_->download_all(copies); });
  }
  void zero(const Tensor& x) override {
    run("zero", [&] { inner_->zero(x); });
  }
  void cast(const Tensor& y, const Tensor& x) override {
    run("cast", [&] { inner_->cast(y, x); });
  }
  void add(const Tensor& y, const Tensor& a, const Tensor& b) override {
    run("add", [&] { inner_->add(y, a, b); });
  }
  void quantize(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                const Tensor& x, const ops::QuantCall& call) override {
    run("quantize", [&] { inner_->quantize(rowwise, columnwise, x, call); });
  }
  void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                             const Tensor& fp8_max, const Tensor& factor,
                             const precision::DelayedScaling& delayed) override {
    run("update_delayed_scales",
        [&] { inner_->update_delayed_scales(history, scale, amax, fp8_max, factor, delayed); });
  }
  void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate) override {
    run("bias_backward", [&] { inner_->bias_backward(db, dy, accumulate); });
  }
  void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                         int64_t first_token, const Tensor& wpe, int64_t seq_len,
                         int64_t first_position) override {
    run("embedding_forward", [&] {
      inner_->embedding_forward(x, tokens, wte, first_token, wpe, seq_len, first_position);
    });
  }
  void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                          const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                          Accumulate dwpe_mode) override {
    run("embedding_backward", [&] {
      inner_->embedding_backward(dwte, first_token, dwpe, dx, tokens, seq_len, dwpe_mode);
    });
  }
  void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                       float eps) override {
    run("rmsnorm_forward", [&] { inner_->rmsnorm_forward(y, rstd, x, w, eps); });
  }
  void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                const Tensor& x, const Tensor& delta, const Tensor& w,
                                float eps) override {
    run("residual_rmsnorm_forward",
        [&] { inner_->residual_rmsnorm_forward(sum, y, rstd, x, delta, w, eps); });
  }
  void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                        const Tensor& w, const Tensor& rstd, Accumulate dx_mode,
                        Accumulate dw_mode) override {
    run("rmsnorm_backward",
        [&] { inner_->rmsnorm_backward(dx, dw, dy, x, w, rstd, dx_mode, dw_mode); });
  }
  void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                         const Tensor& w, const Tensor& b, float eps) override {
    run("layernorm_forward", [&] { inner_->layernorm_forward(y, mean, rstd, x, w, b, eps); });
  }
  void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                  const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                  const Tensor& w, const Tensor& b, float eps) override {
    run("residual_layernorm_forward",
        [&] { inner_->residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b, eps); });
  }
  void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                          const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                          Accumulate dx_mode, Accumulate dw_mode) override {
    run("layernorm_backward",
        [&] { inner_->layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, dx_mode, dw_mode); });
  }
  void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                       const Tensor& wk, const ops::AttentionShape& shape, float eps) override {
    run("qk_norm_forward", [&] { inner_->qk_norm_forward(y, rstd, qkv, wq, wk, shape, eps); });
  }
  void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                        const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                        const ops::AttentionShape& shape, Accumulate dw_mode) override {
    run("qk_norm_backward",
        [&] { inner_->qk_norm_backward(dqkv, dwq, dwk, qkv, wq, wk, rstd, shape, dw_mode); });
  }
  void rope(const Tensor& qkv, const Tensor& table, const ops::AttentionShape& shape,
            int64_t first_position, ops::Direction direction) override {
    run("rope", [&] { inner_->rope(qkv, table, shape, first_position, direction); });
  }
  void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                         const ops::AttentionShape& shape) override {
    run("attention_forward", [&] { inner_->attention_forward(o, lse, qkv, shape); });
  }
  void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                          const Tensor& lse, const ops::AttentionShape& shape) override {
    run("attention_backward", [&] { inner_->attention_backward(dqkv, d_o, qkv, o, lse, shape); });
  }
  void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                        const Tensor& qkv, const ops::AttentionShape& shape,
                        int64_t first_position) override {
    run("attention_cached",
        [&] { inner_->attention_cached(o, k_cache, v_cache, qkv, shape, first_position); });
  }
  void activation_forward(const Tensor& y, const Tensor& x, ops::Activation kind) override {
    run("activation_forward", [&] { inner_->activation_forward(y, x, kind); });
  }
  void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x,
                           ops::Activation kind) override {
    run("activation_backward", [&] { inner_->activation_backward(dx, dy, x, kind); });
  }
  void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                             int64_t vocab) override {
    run("cross_entropy_forward",
        [&] { inner_->cross_entropy_forward(loss, logits, targets, vocab); });
  }
  void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                              int64_t vocab, float scale) override {
    run("cross_entropy_backward",
        [&] { inner_->cross_entropy_backward(loss, logits, targets, vocab, scale); });
  }
  void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                          int64_t first_token, int64_t vocab) override {
    run("cross_entropy_part",
        [&] { inner_->cross_entropy_part(part, logits, targets, first_token, vocab); });
  }
  void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) override {
    run("cross_entropy_join", [&] { inner_->cross_entropy_join(loss, lse, parts); });
  }
  void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                   int64_t first_token, int64_t vocab, float scale) override {
    run("cross_entropy_part_backward", [&] {
      inner_->cross_entropy_part_backward(logits, lse, targets, first_token, vocab, scale);
    });
  }
  void mean(const Tensor& out, const Tensor& x) override {
    run("mean", [&] { inner_->mean(out, x); });
  }
  void square_sums(const Tensor& sums, const Tensor& g) override {
    run("square_sums", [&] { inner_->square_sums(sums, g); });
  }
  void norm_of_sums(const Tensor& norm, const Tensor& sums) override {
    run("norm_of_sums", [&] { inner_->norm_of_sums(norm, sums); });
  }
  void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss,
                   float max_norm) override {
    run("clip_factor", [&] { inner_->clip_factor(factor, norm, loss, max_norm); });
  }
  void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
             const Tensor& grad, const Tensor& factor, const ops::AdamWParams& params) override {
    run("adamw", [&] { inner_->adamw(w, master, m, v, grad, factor, params); });
  }

 protected:
  // Once per call, with its name: does f() and what belongs around it.
  virtual void run(std::string_view call, const std::function<void()>& f) = 0;

  std::unique_ptr<ops::Ops> inner_ = ops::make_cpu_ops();
};

}  // namespace qstep::test
