// What ops_kernels_as_cpu_test links in the place of the CPU's loops: the CUDA backend's kernels,
// run on the host. Its sources are compiled with `cpu` defined as `kernels`, so that every test of
// an operation, with its FP64 reference and its bounds, is one of the kernels as well.
#include "ops/activation_kernels.h"
#include "ops/adamw_kernels.h"
#include "ops/bias_kernels.h"
#include "ops/cross_entropy_kernels.h"
#include "ops/elementwise_kernels.h"
#include "ops/embedding_kernels.h"
#include "ops/layernorm_kernels.h"
#include "ops/qk_norm_kernels.h"
#include "ops/quantize/delayed_scaling_kernels.h"
#include "ops/reduce_kernels.h"
#include "ops/rmsnorm_kernels.h"
#include "ops/rope_kernels.h"
#include "tests/support/host_launch.h"

namespace qstep::ops::kernels {

namespace {

// Forwards and backwards in turn: what tests compare comes from both orders.
test::HostLaunch launch() {
  static bool backwards = false;
  backwards = !backwards;
  return test::HostLaunch(backwards);
}

}  // namespace

void cast(const Tensor& y, const Tensor& x) { device::cast(launch(), y, x); }
void add(const Tensor& y, std::span<const Tensor> x) { device::add(launch(), y, x); }

void activation_forward(const Tensor& y, const Tensor& x, Activation kind, const Tensor& amax) {
  device::activation_forward(launch(), y, x, kind, amax);
}
void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind,
                         const Tensor& amax) {
  device::activation_backward(launch(), dx, dy, x, kind, amax);
}

void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
           const Tensor& grad, const Tensor& factor, const AdamWParams& params) {
  device::adamw(launch(), w, master, m, v, grad, factor, params);
}
void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss, float max_norm) {
  device::clip_factor(launch(), factor, norm, loss, max_norm);
}

void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate, Workspace&) {
  device::bias_backward(launch(), db, dy, accumulate);
}

void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                           int64_t vocab) {
  device::cross_entropy_forward(launch(), loss, logits, targets, vocab);
}
void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                            int64_t vocab, float scale) {
  device::cross_entropy_backward(launch(), loss, logits, targets, vocab, scale);
}
void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                        int64_t first_token, int64_t vocab) {
  device::cross_entropy_part(launch(), part, logits, targets, first_token, vocab);
}
void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) {
  device::cross_entropy_join(launch(), loss, lse, parts);
}
void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                 int64_t first_token, int64_t vocab, float scale) {
  device::cross_entropy_part_backward(launch(), logits, lse, targets, first_token, vocab, scale);
}

void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                           const Tensor& fp8_max, const Tensor& factor,
                           const precision::DelayedScaling& delayed) {
  device::update_delayed_scales(launch(), history, scale, amax, fp8_max, factor, delayed);
}

void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                       int64_t first_token, const Tensor& wpe, int64_t seq_len,
                       int64_t first_position) {
  device::embedding_forward(launch(), x, tokens, wte, first_token, wpe, seq_len, first_position);
}
void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                        const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                        Accumulate dwpe_mode) {
  device::embedding_backward(launch(), dwte, first_token, dwpe, dx, tokens, seq_len, dwpe_mode);
}

void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                     float eps, const Tensor& amax) {
  device::rmsnorm_forward(launch(), y, rstd, x, w, eps, amax);
}
void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                              const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                              const Tensor& amax) {
  device::residual_rmsnorm_forward(launch(), sum, y, rstd, x, delta, w, eps, amax);
}
void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                      const Tensor& w, const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                      Workspace&, const Tensor& amax) {
  device::rmsnorm_backward(launch(), dx, dw, dy, x, w, rstd, dx_mode, dw_mode, amax);
}

void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                       const Tensor& w, const Tensor& b, float eps, const Tensor& amax) {
  device::layernorm_forward(launch(), y, mean, rstd, x, w, b, eps, amax);
}
void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                const Tensor& w, const Tensor& b, float eps, const Tensor& amax) {
  device::residual_layernorm_forward(launch(), sum, y, mean, rstd, x, delta, w, b, eps, amax);
}
void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                        const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                        Accumulate dx_mode, Accumulate dw_mode, Workspace&, const Tensor& amax) {
  device::layernorm_backward(launch(), dx, dw, db, dy, x, w, mean, rstd, dx_mode, dw_mode, amax);
}

void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                     const Tensor& wk, const AttentionShape& shape, float eps) {
  device::qk_norm_forward(launch(), y, rstd, qkv, wq, wk, shape, eps);
}
void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                      const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                      const AttentionShape& shape, Accumulate dw_mode, Workspace&) {
  device::qk_norm_backward(launch(), dqkv, dwq, dwk, qkv, wq, wk, rstd, shape, dw_mode);
}

void mean(const Tensor& out, const Tensor& x, Workspace&) { device::mean(launch(), out, x); }
void square_sums(const Tensor& sums, const Tensor& g) { device::square_sums(launch(), sums, g); }
void norm_of_sums(const Tensor& norm, const Tensor& sums) {
  device::norm_of_sums(launch(), norm, sums);
}

void rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
          int64_t first_position, Direction direction) {
  device::rope(launch(), qkv, table, shape, first_position, direction);
}

}  // namespace qstep::ops::kernels
