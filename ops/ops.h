// The one list of operations. A backend implements each; nothing above this room knows which one
// runs.
//
// Dimensions: B sequences, T positions, N = B T tokens, C channels, H query heads, K key/value
// heads, D head size, I / O in / out features, F feed-forward width, V vocabulary, Vp its padded
// size. Tensors are row-major matrices; activations and weights are FP32 or BF16 ("compute type"),
// statistics, losses, weight gradients and optimizer state FP32, tokens int32. Sums run in FP32 or
// wider.
//
// What quantizers read next may be asked for its amax where it is made: `amax` [1,1] int32, or
// empty, becomes the largest bits of a magnitude of that output as it is stored, NaN above all
// numbers (QuantCall::amax). It costs no pass over the output.
//
// Shapes are checked by every call; a mistake is an internal Error. Calls are ordered, as on a
// stream.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "ops/arena.h"
#include "ops/device_clock.h"
#include "ops/operand.h"
#include "ops/quantized_tensor.h"
#include "ops/tensor.h"
#include "precision/recipe.h"

namespace qstep::ops {

// Whether an output is overwritten or added to.
enum class Accumulate : uint8_t { kNo, kYes };

enum class Direction : uint8_t { kForward, kBackward };

enum class Activation : uint8_t { kGelu, kRelu2, kSwiglu };

// Causal attention with grouped queries: query head h reads key/value head h / (H / K).
// qkv rows hold [q: H D | k: K D | v: K D].
struct AttentionShape {
  int64_t batch = 0;       // B
  int64_t seq_len = 0;     // T
  int64_t n_heads = 0;     // H
  int64_t n_kv_heads = 0;  // K
  int64_t head_dim = 0;    // D

  constexpr int64_t n_tokens() const { return batch * seq_len; }
  constexpr int64_t q_width() const { return n_heads * head_dim; }
  constexpr int64_t kv_width() const { return n_kv_heads * head_dim; }
  constexpr int64_t qkv_width() const { return q_width() + 2 * kv_width(); }
};

// One AdamW update. Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2.
struct AdamWParams {
  float lr = 0;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0;
  int64_t t = 1;  // updates so far, this one included: bias correction 1 - beta^t
};

// Where a tensor is copied to; contiguous.
struct HostCopy {
  void* host = nullptr;
  Tensor src;
};

class Recorder;  // ops/recorder.h

class Ops {
 public:
  virtual ~Ops() = default;
  // "cpu", or the GPU's name as its driver has it.
  virtual std::string_view name() const = 0;

  // What the calls up to the next label are for: the block (from 0; -1: none) and a literal ("qkv
  // fprop", "attention"). For timelines and profilers; what is computed does not depend on it.
  virtual void label(int64_t /*layer*/, std::string_view /*name*/) {}

  // The cudaStream_t that orders the calls, for what runs beside them: exchanges between GPUs.
  // Null: a call is over when it returns.
  virtual void* stream() const { return nullptr; }
  // When the device works on the calls; null where they are over when they return.
  virtual DeviceClock* clock() { return nullptr; }
  // For calls that are made again and again; null where that would save nothing.
  virtual Recorder* recorder() { return nullptr; }

  // ---- memory -------------------------------------------------------------------------

  // Whether tensors are in the memory of the host, where files are written from and read into.
  virtual bool in_host_memory() const { return true; }
  // Zeroed, 64-byte aligned, touched by the threads that will use it.
  virtual Buffer allocate(int64_t bytes) = 0;
  // dst contiguous; `host` has been read when this returns.
  virtual void upload(const Tensor& dst, const void* host) = 0;
  virtual void download(void* host, const Tensor& src) = 0;  // waits for earlier calls
  // Several of them with one wait.
  virtual void download_all(std::span<const HostCopy> copies);
  virtual void zero(const Tensor& x) = 0;
  virtual void cast(const Tensor& y, const Tensor& x) = 0;  // y = round(x)
  // y = round(x[0] + (x[1] + ... )), from the last to the first in FP32; two to kMaxAddends of them
  // in one pass. y may be any of them.
  virtual void add(const Tensor& y, std::span<const Tensor> x) = 0;
  void add(const Tensor& y, const Tensor& a, const Tensor& b) {
    const Tensor both[] = {a, b};
    add(y, both);
  }

  // ---- linear layers ------------------------------------------------------------------

  // d[m,n] (+)= alpha sum_k a[m,k] b[n,k] (+ bias[n])
  // With factors of the operands: alpha becomes fl(fl(fl(alpha sa) sb) fl(1 / (da db))) (TE,
  // numerics 7.6); tile scales multiply FP32 partial sums per tile of k: y = fma(fl(p sa), sb, y).
  virtual void gemm(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                    Accumulate accumulate, const Tensor& bias = {}) = 0;
  // Whether gemm multiplies operands in these forms by their codes: by the matrix units, natively.
  // Where it does not, it reads decoded values (emulated). Asked when tensors are laid out.
  virtual bool multiplies_codes(const CodeProduct& /*product*/) { return false; }
  // Whether quantize takes StochasticRounder::kHardware.
  virtual bool has_hardware_rounder() { return false; }
  // Both orientations of x from one read; either may be empty. `rowwise` and `columnwise` say how
  // (spec) and where to. Where precision::transposable, columnwise.values may be rowwise.values.
  // With Source::kForward the columnwise one is made from what the rowwise one decodes to.
  virtual void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise,
                        const Tensor& x, const QuantCall& call) = 0;
  // Once per optimizer step, per row of history [n, steps] (numerics 7.2): the newest amax enters,
  // amax becomes 0, scale the new one; fp8_max[n] per tensor. After a step without an update (NaN
  // factor, see adamw) nothing enters and amax alone becomes 0.
  virtual void update_delayed_scales(const Tensor& history, const Tensor& scale, const Tensor& amax,
                                     const Tensor& fp8_max, const Tensor& factor,
                                     const precision::DelayedScaling& delayed) = 0;
  // db[o] (+)= sum_n dy[n,o]
  virtual void bias_backward(const Tensor& db, const Tensor& dy, Accumulate accumulate) = 0;

  // ---- embedding ----------------------------------------------------------------------

  // x[n] = wte[tokens[n] - first_token] (+ wpe[first_position + n % T]); wpe may be empty. A token
  // that the table has no row for counts as a row of zeros (vocabulary-parallel: another rank's).
  virtual void embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& wte,
                                 int64_t first_token, const Tensor& wpe, int64_t seq_len,
                                 int64_t first_position) = 0;
  // dwte[tokens[n] - first_token] += dx[n], where the table has that row
  // dwpe[n % T] (+)= dx[n]; rows T and above: untouched when adding, zero otherwise.
  virtual void embedding_backward(const Tensor& dwte, int64_t first_token, const Tensor& dwpe,
                                  const Tensor& dx, const Tensor& tokens, int64_t seq_len,
                                  Accumulate dwpe_mode) = 0;

  // ---- norms --------------------------------------------------------------------------

  // y[n,c] = x[n,c] rstd[n] w[c]
  // rstd[n] = 1 / sqrt(mean_c x[n,c]^2 + eps)                     Zhang and Sennrich 2019
  // amax: of y.
  virtual void rmsnorm_forward(const Tensor& y, const Tensor& rstd, const Tensor& x,
                               const Tensor& w, float eps, const Tensor& amax = {}) = 0;
  // The residual stream and the norm that reads it: sum = x + delta, y = rmsnorm(sum).
  // sum may be x.
  virtual void residual_rmsnorm_forward(const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                        const Tensor& x, const Tensor& delta, const Tensor& w,
                                        float eps, const Tensor& amax = {});
  // dx (+)= d rmsnorm
  // dw[c] (+)= sum_n dy[n,c] x[n,c] rstd[n]
  // amax: of dx as it is then.
  virtual void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy,
                                const Tensor& x, const Tensor& w, const Tensor& rstd,
                                Accumulate dx_mode, Accumulate dw_mode,
                                const Tensor& amax = {}) = 0;
  // y[n,c] = (x[n,c] - mean[n]) rstd[n] w[c] + b[c]
  // rstd[n] = 1 / sqrt(var[n] + eps), var biased                  Ba, Kiros and Hinton 2016
  virtual void layernorm_forward(const Tensor& y, const Tensor& mean, const Tensor& rstd,
                                 const Tensor& x, const Tensor& w, const Tensor& b, float eps,
                                 const Tensor& amax = {}) = 0;
  virtual void residual_layernorm_forward(const Tensor& sum, const Tensor& y, const Tensor& mean,
                                          const Tensor& rstd, const Tensor& x, const Tensor& delta,
                                          const Tensor& w, const Tensor& b, float eps,
                                          const Tensor& amax = {});
  virtual void layernorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& db,
                                  const Tensor& dy, const Tensor& x, const Tensor& w,
                                  const Tensor& mean, const Tensor& rstd, Accumulate dx_mode,
                                  Accumulate dw_mode, const Tensor& amax = {}) = 0;
  // RMSNorm over each query head (weight wq[D]) and key head (wk[D]); v is copied. rstd[N, H + K].
  virtual void qk_norm_forward(const Tensor& y, const Tensor& rstd, const Tensor& qkv,
                               const Tensor& wq, const Tensor& wk, const AttentionShape& shape,
                               float eps) = 0;
  // dqkv in place: d of the output becomes d of the input. dwq, dwk (+)=.
  virtual void qk_norm_backward(const Tensor& dqkv, const Tensor& dwq, const Tensor& dwk,
                                const Tensor& qkv, const Tensor& wq, const Tensor& wk,
                                const Tensor& rstd, const AttentionShape& shape,
                                Accumulate dw_mode) = 0;

  // ---- attention ----------------------------------------------------------------------

  // Rotates q and k of qkv in place, halves against each other (Su et al. 2021; Llama's layout):
  // (x[j], x[j+D/2]) by the angle position * theta^(-2j/D), position = first_position + n % T.
  // table[position] = [cos: D/2 | sin: D/2], FP32.
  // Backward rotates by the negative angle.
  virtual void rope(const Tensor& qkv, const Tensor& table, const AttentionShape& shape,
                    int64_t first_position, Direction direction) = 0;
  // o[N, H D] = softmax(q k^T / sqrt(D), causal) v
  // lse[B H, T] = log sum exp of a row's scores, natural log
  virtual void attention_forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                                 const AttentionShape& shape) = 0;
  virtual void attention_backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv,
                                  const Tensor& o, const Tensor& lse,
                                  const AttentionShape& shape) = 0;
  // Generation, B = 1: rows of qkv are positions first_position .. first_position + T - 1. Their k
  // and v are appended to the caches [max_T, K D]; each row attends to every cached position up to
  // its own.
  virtual void attention_cached(const Tensor& o, const Tensor& k_cache, const Tensor& v_cache,
                                const Tensor& qkv, const AttentionShape& shape,
                                int64_t first_position) = 0;

  // ---- activations --------------------------------------------------------------------

  // kGelu    y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))  x[N,F]   Hendrycks, Gimpel 2016
  // kRelu2   y = max(x, 0)^2                                    x[N,F]   So et al. 2021
  // kSwiglu  y = g sigmoid(g) u, x = [g: F | u: F]              x[N,2F]  Shazeer 2020
  // amax: of y; of dx, both halves of kSwiglu's.
  virtual void activation_forward(const Tensor& y, const Tensor& x, Activation kind,
                                  const Tensor& amax = {}) = 0;
  virtual void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x,
                                   Activation kind, const Tensor& amax = {}) = 0;

  // ---- loss ---------------------------------------------------------------------------

  // loss[n] = log sum_{v<V} exp(logits[n,v]) - logits[n,target[n]], natural log
  virtual void cross_entropy_forward(const Tensor& loss, const Tensor& logits,
                                     const Tensor& targets, int64_t vocab) = 0;
  // The same, and logits become scale * d loss / d logits in place; columns V..Vp-1 become zero.
  virtual void cross_entropy_backward(const Tensor& loss, const Tensor& logits,
                                      const Tensor& targets, int64_t vocab, float scale) = 0;

  // The same where a tensor-parallel group holds the columns of the logits together, P ranks with
  // columns first_token, first_token + 1, ... each (Shoeybi et al. 2019, section 3). Columns that
  // stand for tokens V and above are padding.
  // part[3, n]: the largest of this rank's logits; sum exp(logit - largest); the target's logit, 0
  // where another rank has it. Without a column below V: -inf, 0, 0.
  virtual void cross_entropy_part(const Tensor& part, const Tensor& logits, const Tensor& targets,
                                  int64_t first_token, int64_t vocab) = 0;
  // From the parts of all ranks, [3 P, n], in their order: loss[n] and lse[n], the logarithm of the
  // sum over all columns.
  virtual void cross_entropy_join(const Tensor& loss, const Tensor& lse, const Tensor& parts) = 0;
  // logits become scale * d loss / d logits in place, zero where they are padding.
  virtual void cross_entropy_part_backward(const Tensor& logits, const Tensor& lse,
                                           const Tensor& targets, int64_t first_token,
                                           int64_t vocab, float scale) = 0;

  // ---- reductions ---------------------------------------------------------------------

  // In a fixed order: the same bits for any number of threads.
  virtual void mean(const Tensor& out, const Tensor& x) = 0;  // out[1] = mean of x, FP32
  // The norm of a gradient in two parts, so that ranks may share the first:
  // sums[c] = sum of g^2 over elements [c kReduceChunk, (c + 1) kReduceChunk)    ops/reduce.h
  // norm[1] = sqrt(sum_c sums[c])
  virtual void square_sums(const Tensor& sums, const Tensor& g) = 0;
  virtual void norm_of_sums(const Tensor& norm, const Tensor& sums) = 0;

  // ---- optimizer ----------------------------------------------------------------------

  // factor[1] = min(1, max_norm / norm), or NaN when norm or loss is not finite;
  // max_norm 0 = no clip.
  virtual void clip_factor(const Tensor& factor, const Tensor& norm, const Tensor& loss,
                           float max_norm) = 0;
  // g = factor grad
  // m = b1 m + (1-b1) g
  // v = b2 v + (1-b2) g^2
  // master -= lr (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay master)
  // w = round(master)
  // w may be master (FP32 training). A NaN factor leaves everything as it is.
  virtual void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
                     const Tensor& grad, const Tensor& factor, const AdamWParams& params) = 0;
};

std::unique_ptr<Ops> make_cpu_ops();

// Null, with the reason in `why`, where this build or machine has no CUDA.
std::unique_ptr<Ops> make_cuda_ops(std::string& why);

}  // namespace qstep::ops
