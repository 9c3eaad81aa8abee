// Stands where attention through cuDNN would: the row kernels take every call.
#include "ops/attention/attention.h"
#include "ops/attention/attention_cuda.h"

namespace qstep::ops::cuda {

struct Attention::Plans {
  CudaContext& context;
};

Attention::Attention(CudaContext& context, int64_t /*scratch_limit*/)
    : plans_(new Plans{context}) {}
Attention::~Attention() = default;

void Attention::forward(const Tensor& o, const Tensor& lse, const Tensor& qkv,
                        const AttentionShape& shape) {
  attention_forward(o, lse, qkv, shape, plans_->context);
}
void Attention::backward(const Tensor& dqkv, const Tensor& d_o, const Tensor& qkv, const Tensor& o,
                         const Tensor& lse, const AttentionShape& shape) {
  attention_backward(dqkv, d_o, qkv, o, lse, shape, plans_->context);
}
std::string Attention::path(const AttentionShape& /*shape*/, Dtype /*dtype*/,
                            Direction /*direction*/) {
  return "plain FP32 kernels: this qstep was built without cuDNN; install libcudnn9-dev-cuda-13 "
         "and "
         "build again";
}

}  // namespace qstep::ops::cuda
