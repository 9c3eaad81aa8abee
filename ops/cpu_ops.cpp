// The CPU backend: the list of operations, each handed to the loop in its own file.
#include <cstring>

#include "ops/activation.h"
#include "ops/adamw.h"
#include "ops/attention/attention.h"
#include "ops/bias.h"
#include "ops/cross_entropy.h"
#include "ops/cross_entropy_part.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/gemm/gemm.h"
#include "ops/host_memory.h"
#include "ops/layernorm.h"
#include "ops/ops.h"
#include "ops/qk_norm.h"
#include "ops/quantize/delayed_scaling.h"
#include "ops/quantize/quantize.h"
#include "ops/reduce.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"
#include "ops/workspace.h"

namespace qstep::ops {

namespace {

class CpuOps final : public Ops {
 public:
  std::string_view name() const override { return "cpu"; }

  Buffer allocate(int64_t bytes) override {
    Buffer buffer = allocate_host(bytes);
    // Touches every page, in parallel.
    cpu::zero(matrix(buffer.data(), Dtype::kF32, 1, buffer.bytes() / 4));
    return buffer;
  }
  void upload(const Tensor& dst, const void* host) override {
    check(dst.contiguous(), "upload: destination is not contiguous");
    std::memcpy(dst.data, host, static_cast<size_t>(dst.bytes()));
  }
  void download(void* host, const Tensor& src) override {
    check(src.contiguous(), "download: source is not contiguous");
    std::memcpy(host, src.data, static_cast<size_t>(src.bytes()));
  }
  void zero(const Tensor& x) override { cpu::zero(x); }
  void cast(const Tensor& y, const Tensor& x) override { cpu::cast(y, x); }
  void add(const Tensor& y, std::span<const Tensor> x) override { cpu::add(y, x); }

  void gemm(const Tensor& d, const Operand& a, const Operand& b, float alpha, Accumulate accumulate,
            const Tensor& bias) override {
    gemm_(d, a, b, alpha, accumulate, bias);
  }
  void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise, const Tensor& x,
                const QuantCall& call) override {
    cpu::quantize(rowwise, columnwise, x, call, workspace_);
  }
  void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                             const Tensor& fp8_max, const Tensor& factor,
                             const precision::DelayedScaling& delayed) override {
    cpu::update_delayed_scales(history, scale, amax, fp8_max, factor, delayed);
  }
  void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate) override {
    cpu::bias_backward(db, dy, accumulate, workspace_);
  }

  void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                         int64_t first_token, const Tensor& wpe, int64_t seq_len,
                         int64_t first_position) override {
    cpu::embedding_forward(x, tokens, wte, first_token, wpe, seq_len, first_position);
  }
  void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                          const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                          Accumulate dwpe_mode) override {
    cpu::embedding_backward(dwte, first_token, dwpe, dx, tokens, seq_len, dwpe_mode);
  }

  void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                       float eps, const Tensor& amax) override {
    cpu::rmsnorm_forward(y, rstd, x, w, eps, amax);
  }
  void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                                const Tensor& amax) override {
    cpu::residual_rmsnorm_forward(sum, y, rstd, x, delta, w, eps, amax);
  }
  void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                        const Tensor& w, const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                        const Tensor& amax) override {
    cpu::rmsnorm_backward(dx, dw, dy, x, w, rstd, dx_mode, dw_mode, workspace_, amax);
  }
  void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                         const Tensor& w, const Tensor& b, float eps, const Tensor& amax) override {
    cpu::layernorm_forward(y, mean, rstd, x, w, b, eps, amax);
  }
  void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                  const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                  const Tensor& w, const Tensor& b, float eps,
                                  const Tensor& amax) override {
    cpu::residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b, eps, amax);
  }
  void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                          const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                          Accumulate dx_mode, Accumulate dw_mode, const Tensor& amax) override {
    cpu::layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, dx_mode, dw_mode, workspace_, amax);
  }
  void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                       const Tensor& wk, const AttentionShape& shape, float eps) override {
    cpu::qk_norm_forward(y, rstd, qkv, wq, wk, shape, eps);
  }
  void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                        const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                        const AttentionShape& shape, Accumulate dw_mode) override {
    cpu::qk_norm_backward(dqkv, dwq, dwk, qkv, wq, wk, rstd, shape, dw_mode, workspace_);
  }

  void rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
            int64_t first_position, Direction direction) override {
    cpu::rope(qkv, table, shape, first_position, direction);
  }
  void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                         const AttentionShape& shape) override {
    cpu::attention_forward(o, lse, qkv, shape, workspace_);
  }
  void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                          const Tensor& lse, const AttentionShape& shape) override {
    cpu::attention_backward(dqkv, d_o, qkv, o, lse, shape, workspace_);
  }
  void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                        const Tensor& qkv, const AttentionShape& shape,
                        int64_t first_position) override {
    cpu::attention_cached(o, k_cache, v_cache, qkv, shape, first_position, workspace_);
  }

  void activation_forward(const Tensor& y, const Tensor& x, Activation kind,
                          const Tensor& amax) override {
    cpu::activation_forward(y, x, kind, amax);
  }
  void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind,
                           const Tensor& amax) override {
    cpu::activation_backward(dx, dy, x, kind, amax);
  }

  void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                             int64_t vocab) override {
    cpu::cross_entropy_forward(loss, logits, targets, vocab);
  }
  void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                              int64_t vocab, float scale) override {
    cpu::cross_entropy_backward(loss, logits, targets, vocab, scale);
  }

  void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                          int64_t first_token, int64_t vocab) override {
    cpu::cross_entropy_part(part, logits, targets, first_token, vocab);
  }
  void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) override {
    cpu::cross_entropy_join(loss, lse, parts);
  }
  void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                   int64_t first_token, int64_t vocab, float scale) override {
    cpu::cross_entropy_part_backward(logits, lse, targets, first_token, vocab, scale);
  }

  void mean(const Tensor& out, const Tensor& x) override { cpu::mean(out, x, workspace_); }
  void square_sums(const Tensor& sums, const Tensor& g) override { cpu::square_sums(sums, g); }
  void norm_of_sums(const Tensor& norm, const Tensor& sums) override {
    cpu::norm_of_sums(norm, sums);
  }

  void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss,
                   float max_norm) override {
    cpu::clip_factor(factor, norm, loss, max_norm);
  }
  void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
             const Tensor& grad, const Tensor& factor, const AdamWParams& params) override {
    cpu::adamw(w, master, m, v, grad, factor, params);
  }

 private:
  cpu::Gemm gemm_;
  Workspace workspace_;
};

}  // namespace

std::unique_ptr<Ops> make_cpu_ops() { return std::make_unique<CpuOps>(); }

}  // namespace qstep::ops
