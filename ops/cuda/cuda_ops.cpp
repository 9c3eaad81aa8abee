// The CUDA backend: the list of operations, each handed to the kernels in its own file. Nothing
// here waits for the GPU but download, what allocates, and counting for a ledger.
#include <cuda_runtime_api.h>

#include <array>

#include "ops/activation.h"
#include "ops/adamw.h"
#include "ops/attention/attention.h"
#include "ops/attention/attention_cuda.h"
#include "ops/attention/attention_path.h"
#include "ops/bias.h"
#include "ops/cross_entropy.h"
#include "ops/cross_entropy_part.h"
#include "ops/cuda/cuda_clock.h"
#include "ops/cuda/cuda_context.h"
#include "ops/cuda/cuda_copies.h"
#include "ops/cuda/cuda_probe.h"
#include "ops/cuda/cuda_recorder.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/gemm/gemm_cuda.h"
#include "ops/layernorm.h"
#include "ops/ops.h"
#include "ops/profiler_range.h"
#include "ops/qk_norm.h"
#include "ops/quantize/delayed_scaling.h"
#include "ops/quantize/quantize.h"
#include "ops/reduce.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"

namespace qstep::ops {

namespace {

class CudaOps final : public Ops {
 public:
  std::string_view name() const override { return context_.device_name(); }
  void* stream() const override { return context_.stream(); }

  void label(int64_t layer, std::string_view name) override { range_.begin(name, layer); }
  DeviceClock* clock() override { return &clock_; }
  Recorder* recorder() override { return &recorder_; }

  bool in_host_memory() const override { return false; }
  Buffer allocate(int64_t bytes) override {
    Buffer buffer = allocate_device(bytes);
    if (bytes == 0) return buffer;
    cuda_check(cudaMemsetAsync(buffer.data(), 0, static_cast<size_t>(bytes), context_.stream()),
               "cudaMemset");
    return buffer;
  }
  void upload(const Tensor& dst, const void* host) override {
    check(dst.contiguous(), "upload: destination is not contiguous");
    copies_.upload(dst.data, host, dst.bytes());
  }
  void download(void* host, const Tensor& src) override {
    download_all(std::array{HostCopy{host, src}});
  }
  void download_all(std::span<const HostCopy> copies) override { copies_.download(copies); }
  void zero(const Tensor& x) override { cuda::zero(x, context_); }
  void cast(const Tensor& y, const Tensor& x) override { cuda::cast(y, x, context_); }
  void add(const Tensor& y, std::span<const Tensor> x) override { cuda::add(y, x, context_); }

  void gemm(const Tensor& d, const Operand& a, const Operand& b, float alpha, Accumulate accumulate,
            const Tensor& bias) override {
    gemm_(d, a, b, alpha, accumulate, bias);
  }
  bool multiplies_codes(const CodeProduct& product) override {
    return gemm_.multiplies_codes(product);
  }
  bool has_hardware_rounder() override { return cuda::has_hardware_rounder(); }
  void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise, const Tensor& x,
                const QuantCall& call) override {
    cuda::quantize(rowwise, columnwise, x, call, context_);
  }
  void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                             const Tensor& fp8_max, const Tensor& factor,
                             const precision::DelayedScaling& delayed) override {
    cuda::update_delayed_scales(history, scale, amax, fp8_max, factor, delayed, context_);
  }
  void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate) override {
    cuda::bias_backward(db, dy, accumulate, context_);
  }

  void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                         int64_t first_token, const Tensor& wpe, int64_t seq_len,
                         int64_t first_position) override {
    cuda::embedding_forward(x, tokens, wte, first_token, wpe, seq_len, first_position, context_);
  }
  void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                          const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                          Accumulate dwpe_mode) override {
    cuda::embedding_backward(dwte, first_token, dwpe, dx, tokens, seq_len, dwpe_mode, context_);
  }

  void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w,
                       float eps, const Tensor& amax) override {
    cuda::rmsnorm_forward(y, rstd, x, w, eps, amax, context_);
  }
  void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                const Tensor& x, const Tensor& delta, const Tensor& w, float eps,
                                const Tensor& amax) override {
    cuda::residual_rmsnorm_forward(sum, y, rstd, x, delta, w, eps, amax, context_);
  }
  void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                        const Tensor& w, const Tensor& rstd, Accumulate dx_mode, Accumulate dw_mode,
                        const Tensor& amax) override {
    cuda::rmsnorm_backward(dx, dw, dy, x, w, rstd, dx_mode, dw_mode, amax, context_);
  }
  void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x,
                         const Tensor& w, const Tensor& b, float eps, const Tensor& amax) override {
    cuda::layernorm_forward(y, mean, rstd, x, w, b, eps, amax, context_);
  }
  void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                  const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                  const Tensor& w, const Tensor& b, float eps,
                                  const Tensor& amax) override {
    cuda::residual_layernorm_forward(sum, y, mean, rstd, x, delta, w, b, eps, amax, context_);
  }
  void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db, const Tensor& dy,
                          const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                          Accumulate dx_mode, Accumulate dw_mode, const Tensor& amax) override {
    cuda::layernorm_backward(dx, dw, db, dy, x, w, mean, rstd, dx_mode, dw_mode, amax, context_);
  }
  void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv, const Tensor& wq,
                       const Tensor& wk, const AttentionShape& shape, float eps) override {
    cuda::qk_norm_forward(y, rstd, qkv, wq, wk, shape, eps, context_);
  }
  void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk, const Tensor& qkv,
                        const Tensor& wq, const Tensor& wk, const Tensor& rstd,
                        const AttentionShape& shape, Accumulate dw_mode) override {
    cuda::qk_norm_backward(dqkv, dwq, dwk, qkv, wq, wk, rstd, shape, dw_mode, context_);
  }

  void rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
            int64_t first_position, Direction direction) override {
    cuda::rope(qkv, table, shape, first_position, direction, context_);
  }
  void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                         const AttentionShape& shape) override {
    attention_.forward(o, lse, qkv, shape);
  }
  void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                          const Tensor& lse, const AttentionShape& shape) override {
    attention_.backward(dqkv, d_o, qkv, o, lse, shape);
  }
  void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                        const Tensor& qkv, const AttentionShape& shape,
                        int64_t first_position) override {
    cuda::attention_cached(o, k_cache, v_cache, qkv, shape, first_position, context_);
  }

  void activation_forward(const Tensor& y, const Tensor& x, Activation kind,
                          const Tensor& amax) override {
    cuda::activation_forward(y, x, kind, amax, context_);
  }
  void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind,
                           const Tensor& amax) override {
    cuda::activation_backward(dx, dy, x, kind, amax, context_);
  }

  void cross_entropy_forward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                             int64_t vocab) override {
    cuda::cross_entropy_forward(loss, logits, targets, vocab, context_);
  }
  void cross_entropy_backward(const Tensor& loss, const Tensor& logits, const Tensor& targets,
                              int64_t vocab, float scale) override {
    cuda::cross_entropy_backward(loss, logits, targets, vocab, scale, context_);
  }

  void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                          int64_t first_token, int64_t vocab) override {
    cuda::cross_entropy_part(part, logits, targets, first_token, vocab, context_);
  }
  void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) override {
    cuda::cross_entropy_join(loss, lse, parts, context_);
  }
  void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse, const Tensor& targets,
                                   int64_t first_token, int64_t vocab, float scale) override {
    cuda::cross_entropy_part_backward(logits, lse, targets, first_token, vocab, scale, context_);
  }

  void mean(const Tensor& out, const Tensor& x) override { cuda::mean(out, x, context_); }
  void square_sums(const Tensor& sums, const Tensor& g) override {
    cuda::square_sums(sums, g, context_);
  }
  void norm_of_sums(const Tensor& norm, const Tensor& sums) override {
    cuda::norm_of_sums(norm, sums, context_);
  }

  void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss,
                   float max_norm) override {
    cuda::clip_factor(factor, norm, loss, max_norm, context_);
  }
  void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
             const Tensor& grad, const Tensor& factor, const AdamWParams& params) override {
    cuda::adamw(w, master, m, v, grad, factor, params, context_);
  }

 private:
  CudaContext context_;
  CudaClock clock_{context_};
  CudaRecorder recorder_{context_, clock_};
  CudaCopies copies_{context_.stream()};
  ProfilerRange range_{"qstep operations"};
  cuda::Gemm gemm_{context_};
  cuda::Attention attention_{context_};
};

}  // namespace

std::unique_ptr<Ops> make_cuda_ops(std::string& why) {
  why = cuda::why_no_device();
  if (!why.empty()) return nullptr;
  try {
    return std::make_unique<CudaOps>();
  } catch (const Error& e) {  // a library is missing
    if (e.code() != ExitCode::kGpu) throw;
    why = e.what();
    return nullptr;
  }
}

std::string attention_path_on_gpu(const AttentionShape& shape, Dtype dtype, Direction direction) {
  if (const std::string why = cuda::why_no_device(); !why.empty()) {
    throw Error(ExitCode::kGpu, why);
  }
  CudaContext context;
  return cuda::Attention(context).path(shape, dtype, direction);
}

}  // namespace qstep::ops
