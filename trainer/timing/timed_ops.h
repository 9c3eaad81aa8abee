// A backend whose calls are noted in a timeline: two looks at the clock and one note a call,
// nothing else. Every call, fused ones included, goes to the backend as it is.
#pragma once

#include <vector>

#include "ops/ops.h"
#include "trainer/timing/op_work.h"
#include "trainer/timing/timeline.h"

namespace qstep::trainer {

// What calls had to do: the place of a call among the spans of its step, and its work.
struct LoggedWork {
  size_t span = 0;
  OpWork work;
};
using WorkLog = std::vector<LoggedWork>;

class TimedOps final : public ops::Ops {
 public:
  // Both outlive this.
  TimedOps(ops::Ops& inner, Timeline& timeline) : inner_(inner), timeline_(timeline) {}

  std::string_view name() const override { return inner_.name(); }
  void label(int64_t layer, std::string_view name) override {
    timeline_.label(layer, name);
    inner_.label(layer, name);
  }
  // From now on the work of every call that is noted; null: of none, which costs nothing.
  void log_work(WorkLog* log) { work_log_ = log; }
  void* stream() const override { return inner_.stream(); }
  ops::DeviceClock* clock() override { return inner_.clock(); }
  // Work is logged of calls that are made.
  ops::Recorder* recorder() override { return work_log_ == nullptr ? inner_.recorder() : nullptr; }
  bool in_host_memory() const override { return inner_.in_host_memory(); }
  ops::Buffer allocate(int64_t bytes) override { return inner_.allocate(bytes); }

  bool multiplies_codes(const ops::CodeProduct& product) override {
    return inner_.multiplies_codes(product);
  }
  bool has_hardware_rounder() override { return inner_.has_hardware_rounder(); }
  void gemm(const ops::Tensor& d, const ops::Operand& a, const ops::Operand& b, float alpha,
            ops::Accumulate accumulate, const ops::Tensor& bias) override;

  void upload(const ops::Tensor& dst, const void* host) override;
  void download(void* host, const ops::Tensor& src) override;
  void download_all(std::span<const ops::HostCopy> copies) override;
  void zero(const ops::Tensor& x) override;
  void cast(const ops::Tensor& y, const ops::Tensor& x) override;
  void add(const ops::Tensor& y, std::span<const ops::Tensor> x) override;
  void quantize(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                const ops::Tensor& x, const ops::QuantCall& call) override;
  void update_delayed_scales(const ops::Tensor& history, const ops::Tensor& scale,
                             const ops::Tensor& amax, const ops::Tensor& fp8_max,
                             const ops::Tensor& factor,
                             const precision::DelayedScaling& delayed) override;
  void bias_backward(const ops::Tensor& db, const ops::Tensor& dy,
                     ops::Accumulate accumulate) override;
  void embedding_forward(const ops::Tensor& x, const ops::Tensor& tokens, const ops::Tensor& wte,
                         int64_t first_token, const ops::Tensor& wpe, int64_t seq_len,
                         int64_t first_position) override;
  void embedding_backward(const ops::Tensor& dwte, int64_t first_token, const ops::Tensor& dwpe,
                          const ops::Tensor& dx, const ops::Tensor& tokens, int64_t seq_len,
                          ops::Accumulate dwpe_mode) override;
  void rmsnorm_forward(const ops::Tensor& y, const ops::Tensor& rstd, const ops::Tensor& x,
                       const ops::Tensor& w, float eps, const ops::Tensor& amax) override;
  void residual_rmsnorm_forward(const ops::Tensor& sum, const ops::Tensor& y,
                                const ops::Tensor& rstd, const ops::Tensor& x,
                                const ops::Tensor& delta, const ops::Tensor& w, float eps,
                                const ops::Tensor& amax) override;
  void rmsnorm_backward(const ops::Tensor& dx, const ops::Tensor& dw, const ops::Tensor& dy,
                        const ops::Tensor& x, const ops::Tensor& w, const ops::Tensor& rstd,
                        ops::Accumulate dx_mode, ops::Accumulate dw_mode,
                        const ops::Tensor& amax) override;
  void layernorm_forward(const ops::Tensor& y, const ops::Tensor& mean, const ops::Tensor& rstd,
                         const ops::Tensor& x, const ops::Tensor& w, const ops::Tensor& b,
                         float eps, const ops::Tensor& amax) override;
  void residual_layernorm_forward(const ops::Tensor& sum, const ops::Tensor& y,
                                  const ops::Tensor& mean, const ops::Tensor& rstd,
                                  const ops::Tensor& x, const ops::Tensor& delta,
                                  const ops::Tensor& w, const ops::Tensor& b, float eps,
                                  const ops::Tensor& amax) override;
  void layernorm_backward(const ops::Tensor& dx, const ops::Tensor& dw, const ops::Tensor& db,
                          const ops::Tensor& dy, const ops::Tensor& x, const ops::Tensor& w,
                          const ops::Tensor& mean, const ops::Tensor& rstd, ops::Accumulate dx_mode,
                          ops::Accumulate dw_mode, const ops::Tensor& amax) override;
  void qk_norm_forward(const ops::Tensor& y, const ops::Tensor& rstd, const ops::Tensor& qkv,
                       const ops::Tensor& wq, const ops::Tensor& wk,
                       const ops::AttentionShape& shape, float eps) override;
  void qk_norm_backward(const ops::Tensor& dqkv, const ops::Tensor& dwq, const ops::Tensor& dwk,
                        const ops::Tensor& qkv, const ops::Tensor& wq, const ops::Tensor& wk,
                        const ops::Tensor& rstd, const ops::AttentionShape& shape,
                        ops::Accumulate dw_mode) override;
  void rope(const ops::Tensor& qkv, const ops::Tensor& table, const ops::AttentionShape& shape,
            int64_t first_position, ops::Direction direction) override;
  void attention_forward(const ops::Tensor& o, const ops::Tensor& lse, const ops::Tensor& qkv,
                         const ops::AttentionShape& shape) override;
  void attention_backward(const ops::Tensor& dqkv, const ops::Tensor& d_o, const ops::Tensor& qkv,
                          const ops::Tensor& o, const ops::Tensor& lse,
                          const ops::AttentionShape& shape) override;
  void attention_cached(const ops::Tensor& o, const ops::Tensor& k_cache,
                        const ops::Tensor& v_cache, const ops::Tensor& qkv,
                        const ops::AttentionShape& shape, int64_t first_position) override;
  void activation_forward(const ops::Tensor& y, const ops::Tensor& x, ops::Activation kind,
                          const ops::Tensor& amax) override;
  void activation_backward(const ops::Tensor& dx, const ops::Tensor& dy, const ops::Tensor& x,
                           ops::Activation kind, const ops::Tensor& amax) override;
  void cross_entropy_forward(const ops::Tensor& loss, const ops::Tensor& logits,
                             const ops::Tensor& targets, int64_t vocab) override;
  void cross_entropy_backward(const ops::Tensor& loss, const ops::Tensor& logits,
                              const ops::Tensor& targets, int64_t vocab, float scale) override;
  void cross_entropy_part(const ops::Tensor& part, const ops::Tensor& logits,
                          const ops::Tensor& targets, int64_t first_token, int64_t vocab) override;
  void cross_entropy_join(const ops::Tensor& loss, const ops::Tensor& lse,
                          const ops::Tensor& parts) override;
  void cross_entropy_part_backward(const ops::Tensor& logits, const ops::Tensor& lse,
                                   const ops::Tensor& targets, int64_t first_token, int64_t vocab,
                                   float scale) override;
  void mean(const ops::Tensor& out, const ops::Tensor& x) override;
  void square_sums(const ops::Tensor& sums, const ops::Tensor& g) override;
  void norm_of_sums(const ops::Tensor& norm, const ops::Tensor& sums) override;
  void clip_factor(const ops::Tensor& factor, const ops::Tensor& norm, const ops::Tensor& loss,
                   float max_norm) override;
  void adamw(const ops::Tensor& w, const ops::Tensor& master, const ops::Tensor& m,
             const ops::Tensor& v, const ops::Tensor& grad, const ops::Tensor& factor,
             const ops::AdamWParams& params) override;

 private:
  template <class Work, class F>
  void timed(Category category, std::string_view call, Work&& work, F&& f) {
    if (!timeline_.notes_calls()) return f();
    const Timeline::Stamp begin = timeline_.begin_call();
    f();
    timeline_.end_call(begin, category, call);
    log(work);
  }
  // Of the call that the timeline noted last.
  template <class Work>
  void log(Work&& work) {
    if (work_log_ != nullptr) work_log_->push_back({timeline_.spans().size() - 1, work()});
  }
  Category element_wise() const;

  ops::Ops& inner_;
  Timeline& timeline_;
  WorkLog* work_log_ = nullptr;
};

}  // namespace qstep::trainer
