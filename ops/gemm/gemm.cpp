#include "ops/gemm/gemm.h"

#include <compare>
#include <dnnl.hpp>
#include <map>
#include <vector>

#include "ops/gemm/gemm_tiled.h"
#include "ops/workspace.h"

namespace qstep::ops::cpu {

namespace {

struct Key {
  int64_t m, n, k, lda, ldb, ldd;
  Major a_major, b_major;
  Dtype in, out;
  bool bias, scaled, accumulate;
  auto operator<=>(const Key&) const = default;
};

dnnl::memory::data_type dnnl_type(Dtype dtype) {
  return dtype == Dtype::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

dnnl::memory::desc strided(int64_t rows, int64_t cols, Dtype dtype, int64_t row_stride,
                           int64_t col_stride) {
  return dnnl::memory::desc({rows, cols}, dnnl_type(dtype),
                            dnnl::memory::dims{row_stride, col_stride});
}

// A primitive and the memory objects that are pointed at each call's tensors.
struct Plan {
  dnnl::matmul primitive;
  dnnl::memory a, b, d, bias, alpha, scratch;
  std::unordered_map<int, dnnl::memory> args;
};

}  // namespace

struct Gemm::Plans {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Key, Plan> plans;
  Workspace scratch;

  Plan make(const Key& key);
};

Plan Gemm::Plans::make(const Key& key) {
  const auto a_md = key.a_major == Major::kK ? strided(key.m, key.k, key.in, key.lda, 1)
                                             : strided(key.m, key.k, key.in, 1, key.lda);
  // oneDNN's second operand is [k, n].
  const auto b_md = key.b_major == Major::kK ? strided(key.k, key.n, key.in, 1, key.ldb)
                                             : strided(key.k, key.n, key.in, key.ldb, 1);
  const auto d_md = strided(key.m, key.n, key.out, key.ldd, 1);
  const auto bias_md = key.bias ? strided(1, key.n, key.in, key.n, 1) : dnnl::memory::desc();
  const auto alpha_md = strided(1, 1, Dtype::kF32, 1, 1);

  // fl(fl(fl(alpha sum) + bias) + d): oneDNN adds a bias of its own before it multiplies, so that
  // of a scaled product comes as a second operation behind alpha.
  const bool bias_behind_alpha = key.bias && key.scaled;
  dnnl::post_ops epilogue;
  if (key.scaled) epilogue.append_binary(dnnl::algorithm::binary_mul, alpha_md);
  if (bias_behind_alpha) epilogue.append_binary(dnnl::algorithm::binary_add, bias_md);
  if (key.accumulate) epilogue.append_sum(1.0f);
  const auto own_bias_md = bias_behind_alpha ? dnnl::memory::desc() : bias_md;
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attr.set_post_ops(epilogue);

#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc desc(engine, a_md, b_md, own_bias_md, d_md, attr);
#else
  const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(a_md, b_md, own_bias_md, d_md), attr,
                                          engine);
#endif

  Plan plan{.primitive = dnnl::matmul(desc),
            .a = dnnl::memory(a_md, engine, nullptr),
            .b = dnnl::memory(b_md, engine, nullptr),
            .d = dnnl::memory(d_md, engine, nullptr),
            .bias = {},
            .alpha = {},
            .scratch = dnnl::memory(desc.scratchpad_desc(), engine, nullptr),
            .args = {}};
  plan.args = {{DNNL_ARG_SRC, plan.a},
               {DNNL_ARG_WEIGHTS, plan.b},
               {DNNL_ARG_DST, plan.d},
               {DNNL_ARG_SCRATCHPAD, plan.scratch}};
  if (key.bias) {
    plan.bias = dnnl::memory(bias_md, engine, nullptr);
    plan.args.emplace(
        bias_behind_alpha ? DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1 : DNNL_ARG_BIAS,
        plan.bias);
  }
  if (key.scaled) {
    plan.alpha = dnnl::memory(alpha_md, engine, nullptr);
    plan.args.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, plan.alpha);
  }
  return plan;
}

Gemm::Gemm() : plans_(std::make_unique<Plans>()) {}
Gemm::~Gemm() = default;

void Gemm::operator()(const Tensor& d, const Operand& a, const Operand& b, float alpha,
                      Accumulate accumulate, const Tensor& bias) {
  check_gemm(d, a, b, bias);
  if (d.size() == 0) return;
  const float factor = gemm_factor(alpha, a, b);
  if (tiled(a) || tiled(b)) {
    gemm_tiled(d, a, b, factor, accumulate, bias, plans_->scratch);
    return;
  }
  const Key key{.m = a.rows,
                .n = b.rows,
                .k = a.k,
                .lda = a.ld,
                .ldb = b.ld,
                .ldd = d.ld,
                .a_major = a.major,
                .b_major = b.major,
                .in = a.dtype,
                .out = d.dtype,
                .bias = static_cast<bool>(bias),
                .scaled = alpha != 1.0f || a.scale != nullptr || b.scale != nullptr,
                .accumulate = accumulate == Accumulate::kYes};
  auto found = plans_->plans.find(key);
  if (found == plans_->plans.end()) found = plans_->plans.emplace(key, plans_->make(key)).first;
  Plan& plan = found->second;

  // oneDNN takes inputs through non-const pointers; it does not write them.
  plan.a.set_data_handle(const_cast<void*>(a.data));
  plan.b.set_data_handle(const_cast<void*>(b.data));
  plan.d.set_data_handle(d.data);
  plan.scratch.set_data_handle(
      plans_->scratch.take<char>(static_cast<int64_t>(plan.scratch.get_desc().get_size())));
  if (bias) plan.bias.set_data_handle(bias.data);
  if (key.scaled) plan.alpha.set_data_handle(const_cast<float*>(&factor));
  plan.primitive.execute(plans_->stream, plan.args);
  plans_->stream.wait();
}

}  // namespace qstep::ops::cpu
