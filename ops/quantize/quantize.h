// The quantizers: both orientations of a tensor from one read (two where a factor per tensor needs
// its amax first).
#pragma once

#include <cstdint>
#include <vector>

#include "ops/ops.h"
#include "ops/workspace.h"

namespace qstep::ops {

class CudaContext;

void check_quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise,
                    const Tensor& x, const QuantCall& call);

// The stored form of one orientation, for files and comparisons: codes contiguous along k, one per
// byte; block scales as bytes (nvfp4: E4M3, mx: E8M0) in the order [operand rows / block rows,
// k / block k], rounded up. (Not packed and not swizzled: see formats.)
struct EncodedTensor {
  int64_t rows = 0, k = 0;  // of the operand
  std::vector<uint8_t> codes;
  int64_t scale_rows = 0, scale_k = 0;
  std::vector<uint8_t> block_scales;  // empty for fp8
  std::vector<float> tile_scales;     // as QuantizedTensor::tile_scales
  float scale = 1.0f;                 // as QuantizedTensor::scale
};

namespace cpu {

void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise, const Tensor& x,
              const QuantCall& call, Workspace& workspace);

// Also fills q (laid out for x). Not for the step: it allocates.
EncodedTensor quantize_encoded(const QuantizedTensor& q, const Tensor& x, const QuantCall& call);

}  // namespace cpu

namespace cuda {

// The same bits. Asynchronous, but for calls that ask for statistics: those wait for their numbers.
void quantize(const QuantizedTensor& rowwise, const QuantizedTensor& columnwise, const Tensor& x,
              const QuantCall& call, CudaContext& context);

}  // namespace cuda
}  // namespace qstep::ops
