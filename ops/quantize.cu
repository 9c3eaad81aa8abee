// cuda::quantize: the passes of ops/quantize_passes.h on a stream.
#include "ops/quantize.h"
#include "ops/quantize_passes.h"
#include "ops/quantize_units.cuh"

namespace qstep::ops {
namespace device {

QSTEP_QUANTIZE_UNITS(extern, 16);
QSTEP_QUANTIZE_UNITS(extern, 32);
QSTEP_QUANTIZE_UNITS(extern, 64);
QSTEP_QUANTIZE_UNITS(extern, 128);

}  // namespace device

namespace cuda {

void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise, const Tensor& x,
              const QuantCall& call, CudaContext& context) {
  device::quantize_with(device::QuantizeLaunch(context), rowwise, columnwise, x, call);
}

}  // namespace cuda
}  // namespace qstep::ops
