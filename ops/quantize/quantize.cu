// cuda::quantize: the calls of ops/quantize/quantize_calls.h on a stream.
#include "ops/quantize/quantize.h"
#include "ops/quantize/quantize_calls.h"
#include "ops/quantize/quantize_formats.cuh"

namespace qstep::ops {
namespace device {

QSTEP_QUANTIZE_NVFP4(extern);
QSTEP_QUANTIZE_MXFP4(extern);
QSTEP_QUANTIZE_MXFP8(extern);
QSTEP_QUANTIZE_FP8_BLOCKS(extern);
QSTEP_QUANTIZE_AMAXES(extern);

}  // namespace device

namespace cuda {

void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise, const Tensor& x,
              const QuantCall& call, CudaContext& context) {
  device::quantize_with(device::QuantizeLaunch(context), rowwise, columnwise, x, call);
}

}  // namespace cuda
}  // namespace qstep::ops
