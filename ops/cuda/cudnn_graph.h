// A graph of operations for cuDNN, described step by step. Its intermediate tensors exist only for
// the description: the library finds one kernel that does the whole graph.
#pragma once

#include <array>
#include <optional>

#include "ops/cuda/cudnn.h"

namespace qstep::ops {

// Four dimensions and their strides in elements.
struct CudnnLayout {
  std::array<int64_t, 4> dims, strides;
};
CudnnLayout packed(const std::array<int64_t, 4>& dims);
CudnnLayout transposed(CudnnLayout layout);  // the last two dimensions exchanged

class CudnnGraph {
 public:
  using Value = size_t;  // a tensor of this graph

  // A tensor in device memory, 16-byte aligned; calls name it by `uid`, a positive number.
  Value in_memory(int64_t uid, const CudnnLayout& layout, cudnnDataType_t type);
  // An FP32 number in host memory, named likewise.
  Value number(int64_t uid);

  // y = the result, of the first argument's layout, FP32 and in no memory unless stated otherwise.
  Value pointwise(cudnnPointwiseMode_t mode, Value x, std::optional<Value> b = {},
                  std::optional<Value> into = {});
  Value index(int64_t axis, Value x);                   // INT32: an element's place
  Value at_least(Value a, Value b);                     // BOOLEAN: a >= b
  Value select(Value where, Value x, Value otherwise);  // where ? x : otherwise
  Value matmul(Value a, Value b, const CudnnLayout& layout, cudnnDataType_t type);
  void matmul_into(Value a, Value b, Value y);
  // Sums or maxima over the dimensions in which y has one element.
  Value reduce(cudnnReduceTensorOp_t op, Value x, const CudnnLayout& layout);
  void reduce_into(cudnnReduceTensorOp_t op, Value x, Value y);
  Value reshape(Value x, const CudnnLayout& layout, cudnnDataType_t type);
  Value temporary(const CudnnLayout& layout, cudnnDataType_t type);

  // The finalized graph; without a handle plans can be made of it for a GPU that is described.
  CudnnDescriptor finish(cudnnHandle_t handle) const;

 private:
  struct Tensor {
    CudnnLayout layout;
    CudnnDescriptor descriptor;
  };
  Value add(int64_t uid, const CudnnLayout& layout, cudnnDataType_t type, bool in_memory,
            bool by_value);
  void add_pointwise(cudnnPointwiseMode_t mode, cudnnDataType_t precision, Value x,
                     std::optional<Value> b, std::optional<Value> t, Value y, int64_t axis = -1);

  std::vector<Tensor> tensors_;
  std::vector<CudnnDescriptor> what_, operations_;
};

}  // namespace qstep::ops
