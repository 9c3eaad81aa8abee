// A CPU backend with something around each of its calls: a base of backends that behave as a GPU's
// in one respect.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

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
    run("gemm", all_of(d, a, b, bias),
        [=, this] { inner_->gemm(d, a, b, alpha, accumulate, bias); });
  }
  void upload(const Tensor& dst, const void* host) override {
    run("upload", {dst}, [=, this] { inner_->upload(dst, host); });
  }
  void download(void* host, const Tensor& src) override {
    run("download", {src}, [=, this] { inner_->download(host, src); });
  }
  void download_all(std::span<const ops::HostCopy> copies) override {
    run("download_all", sources(copies), [=, this] { inner_->download_all(copies); });
  }
  void zero(const Tensor& x) override {
    run("zero", {x}, [=, this] { inner_->zero(x); });
  }
  void cast(const Tensor& y, const Tensor& x) override {
    run("cast", {y, x}, [=, this] { inner_->cast(y, x); });
  }
  void add(const Tensor& y, std::span<const Tensor> x) override {
    Tensors all(x.begin(), x.end());
    const auto call = [=, this] { inner_->add(y, all); };
    all.push_back(y);
    run("add", all, call);
  }
  void quantize(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                const Tensor& x, const ops::QuantCall& call) override {
    run("quantize",
        all_of(rowwise, columnwise, x, call.amax, call.delayed_scale, call.delayed_amax,
               call.non_finite),
        [=, this] { inner_->quantize(rowwise, columnwise, x, call); });
  }
  void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                             const Tensor& fp8_max, const Tensor& factor,
                             const precision::DelayedScaling& delayed) override {
    run("update_delayed_scales", {history, scale, amax, fp8_max, factor}, [=, this] {
      inner_->update_delayed_scales(history, scale, amax, fp8_max, factor, delayed);
    });
  }
  void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate) override {
    run("bias_backward", {db, dy}, [=, this] { inner_->bias_backward(db, dy, accumulate); });
  }
  void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                         int64_t first_token, const Tensor& wpe, int64_t seq_len,
                         int64_t first_position) override {
    run("embedding_forward", {x, tokens, wte, wpe}, [=, this] {
      inner_->embedding_forward(x, tokens, wte, first_token, wpe, seq_len, first_position);
    });
  }
  void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                          const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                          Accumulate dwpe_mode) override {
    run("embedding_backward", {dwte, dwpe, dx, tokens}, [=, this] {
      inner_->embedding_backward(dwte, first_token, dwpe, dx, tokens, seq_len, dwpe_mode);
    });
  }
  void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                       float eps, const Tensor& amax) override {
    run("rmsnorm_forward", {y, rstd, x, w, amax},
        [=, this] { inner_->rmsnorm_forward(y, rstd, x, w, eps, amax); });
  }
  void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                                const Tensor& amax) override {
    run("residual_rmsnorm_forward", {sum, y, rstd, x, delta, w, amax},
        [=, this] { inner_->residual_rmsnorm_forward(sum, y, rstd, x, delta, w, eps, amax); });
  }
  void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                        const Tensor& w, const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                        const Tensor& amax) override {
    run("rmsnorm_backward", {dx, dw, dy, x, w, rstd, amax},
        [=, this] { inner_->rmsnorm_backward(dx, dw, dy, x, w, rstd, dx_mode, dw_mode, amax); });
  }
  void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                         const Tensor& w, const Tensor& b, float eps, const Tensor& amax) override {
    run("layernorm_forward", {y, mean, rstd, x, w, b, amax},
        [=, this] { inner_->layernorm_forward(y, mean, rstd, x, w, b, eps, amax); });
  }
  void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                  const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                  const Tensor& w, const Tensor& b, float eps,
                                  const Tensor& amax) override {
    run("residual_layernorm_forward", {sum, y, mean, rstd, x, delta, w, b, amax}, [=, this] {
      inner_->residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b, eps, amax);
    });
  }
  void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                          const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                          Accumulate dx_mode, Accumulate dw_mode, const Tensor& amax) override {
    run("layernorm_backward", {dx, dw, db, dy, x, w, mean, rstd, amax}, [=, this] {
      inner_->layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, dx_mode, dw_mode, amax);
    });
  }
  void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                       const Tensor& wk, const ops::AttentionShape& shape, float eps) override {
    run("qk_norm_forward", {y, rstd, qkv, wq, wk},
        [=, this] { inner_->qk_norm_forward(y, rstd, qkv, wq, wk, shape, eps); });
  }
  void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                        const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                        const ops::AttentionShape& shape, Accumulate dw_mode) override {
    run("qk_norm_backward", {dqkv, dwq, dwk, qkv, wq, wk, rstd},
        [=, this] { inner_->qk_norm_backward(dqkv, dwq, dwk, qkv, wq, wk, rstd, shape, dw_mode); });
  }
  void rope(const Tensor& qkv, const Tensor& table, const ops::AttentionShape& shape,
            int64_t first_position, ops::Direction direction) override {
    run("rope", {qkv, table},
        [=, this] { inner_->rope(qkv, table, shape, first_position, direction); });
  }
  void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                         const ops::AttentionShape& shape) override {
    run("attention_forward", {o, lse, qkv},
        [=, this] { inner_->attention_forward(o, lse, qkv, shape); });
  }
  void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                          const Tensor& lse, const ops::AttentionShape& shape) override {
    run("attention_backward", {dqkv, d_o, qkv, o, lse},
        [=, this] { inner_->attention_backward(dqkv, d_o, qkv, o, lse, shape); });
  }
  void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                        const Tensor& qkv, const ops::AttentionShape& shape,
                        int64_t first_position) override {
    run("attention_cached", {o, k_cache, v_cache, qkv},
        [=, this] { inner_->attention_cached(o, k_cache, v_cache, qkv, shape, first_position); });
  }
  void activation_forward(const Tensor& y, const Tensor& x, ops::Activation kind,
                          const Tensor& amax) override {
    run("activation_forward", {y, x, amax},
        [=, this] { inner_->activation_forward(y, x, kind, amax); });
  }
  void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x,
                           ops::Activation kind, const Tensor& amax) override {
    run("activation_backward", {dx, dy, x, amax},
        [=, this] { inner_->activation_backward(dx, dy, x, kind, amax); });
  }
  void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                             int64_t vocab) override {
    run("cross_entropy_forward", {loss, logits, targets},
        [=, this] { inner_->cross_entropy_forward(loss, logits, targets, vocab); });
  }
  void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                              int64_t vocab, float scale) override {
    run("cross_entropy_backward", {loss, logits, targets},
        [=, this] { inner_->cross_entropy_backward(loss, logits, targets, vocab, scale); });
  }
  void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                          int64_t first_token, int64_t vocab) override {
    run("cross_entropy_part", {part, logits, targets},
        [=, this] { inner_->cross_entropy_part(part, logits, targets, first_token, vocab); });
  }
  void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) override {
    run("cross_entropy_join", {loss, lse, parts},
        [=, this] { inner_->cross_entropy_join(loss, lse, parts); });
  }
  void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                   int64_t first_token, int64_t vocab, float scale) override {
    run("cross_entropy_part_backward", {logits, lse, targets}, [=, this] {
      inner_->cross_entropy_part_backward(logits, lse, targets, first_token, vocab, scale);
    });
  }
  void mean(const Tensor& out, const Tensor& x) override {
    run("mean", {out, x}, [=, this] { inner_->mean(out, x); });
  }
  void square_sums(const Tensor& sums, const Tensor& g) override {
    run("square_sums", {sums, g}, [=, this] { inner_->square_sums(sums, g); });
  }
  void norm_of_sums(const Tensor& norm, const Tensor& sums) override {
    run("norm_of_sums", {norm, sums}, [=, this] { inner_->norm_of_sums(norm, sums); });
  }
  void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss,
                   float max_norm) override {
    run("clip_factor", {factor, norm, loss},
        [=, this] { inner_->clip_factor(factor, norm, loss, max_norm); });
  }
  void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
             const Tensor& grad, const Tensor& factor, const ops::AdamWParams& params) override {
    run("adamw", {w, master, m, v, grad, factor},
        [=, this] { inner_->adamw(w, master, m, v, grad, factor, params); });
  }

 protected:
  // Once per call, with its name: does f() and what belongs around it.
  virtual void run(std::string_view call, const std::function<void()>& f) = 0;
  // Before that, with the tensors that the call works on; empty ones have no data.
  using Tensors = std::vector<Tensor>;
  virtual void look_at(std::string_view /*call*/, const Tensors& /*tensors*/) {}

  std::unique_ptr<ops::Ops> inner_ = ops::make_cpu_ops();

 private:
  void run(std::string_view call, const Tensors& tensors, const std::function<void()>& f) {
    look_at(call, tensors);
    run(call, f);
  }
  static void put(Tensors& all, const Tensor& x) { all.push_back(x); }
  static void put(Tensors& all, const Operand& x) {
    for (const void* const part :
         {x.data, static_cast<const void*>(x.scale), static_cast<const void*>(x.tile_scales),
          static_cast<const void*>(x.codes), x.block_scales}) {
      all.push_back(ops::matrix(const_cast<void*>(part), ops::Dtype::kU8, 1, 1));
    }
  }
  static void put(Tensors& all, const ops::QuantizedTensor& q) {
    for (const Tensor& x : {q.values, q.scale, q.tile_scales, q.codes, q.block_scales}) {
      all.push_back(x);
    }
  }
  template <class... T>
  static Tensors all_of(const T&... x) {
    Tensors all;
    (put(all, x), ...);
    return all;
  }
  static Tensors sources(std::span<const ops::HostCopy> copies) {
    Tensors all;
    for (const ops::HostCopy& copy : copies) all.push_back(copy.src);
    return all;
  }
};

}  // namespace qstep::test
