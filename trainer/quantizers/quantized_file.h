// The file that qstep quantize writes: codes, scales and decoded values of a tensor, for comparison
// with other implementations. README.md specifies it field by field.
#pragma once

#include <cstdint>
#include <string>

#include "data/hdf5.h"
#include "ops/quantize/quantize.h"

namespace qstep::trainer {

struct QuantizedSource {
  std::string path;
  ops::Tensor tensor;
};

// One orientation. `q` and `encoded` are of the same call.
struct QuantizedOperand {
  const ops::QuantizedTensor& q;
  const ops::EncodedTensor& encoded;
  const ops::QuantStats& stats;
};

// What a decoded value of the whole tensor is multiplied with: fl(scale / denominator), or 1.
float tensor_factor(const ops::QuantizedTensor& q);

// Appears under its name when it is complete; nothing of it is left otherwise. Throws data::Error,
// of kDisk where it cannot be written.
class QuantizedFile {
 public:
  explicit QuantizedFile(const std::string& path);
  ~QuantizedFile();
  QuantizedFile(const QuantizedFile&) = delete;
  QuantizedFile& operator=(const QuantizedFile&) = delete;

  void add(const QuantizedSource& source, const ops::QuantRandom& random);
  void add(const QuantizedOperand& operand);
  void finish();

 private:
  void add_attributes(const std::string& group, const QuantizedOperand& operand);
  void add_codes(const std::string& group, const ops::EncodedTensor& e, int bits);
  void add_block_scales(const std::string& group, const QuantizedOperand& operand);
  void add_dequantized(const std::string& group, const ops::QuantizedTensor& q);
  void set_shape(const std::string& object, int64_t rows, int64_t cols);

  std::string path_, temporary_;
  data::Hdf5File file_;
};

}  // namespace qstep::trainer
