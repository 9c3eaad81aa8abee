#include "ops/cuda/cudnn_graph.h"

#include <utility>

namespace qstep::ops {

namespace {

constexpr int64_t kAlignment = 16;         // bytes: what cuDNN's attention reads at a time
constexpr int64_t kFirstTemporary = 1000;  // beyond the names that callers give

}  // namespace

CudnnLayout packed(const std::array<int64_t, 4>& dims) {
  return {dims, {dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1}};
}

CudnnLayout transposed(CudnnLayout layout) {
  std::swap(layout.dims[2], layout.dims[3]);
  std::swap(layout.strides[2], layout.strides[3]);
  return layout;
}

CudnnGraph::Value CudnnGraph::add(int64_t uid, const CudnnLayout& layout, cudnnDataType_t type,
                                  bool in_memory, bool by_value) {
  CudnnDescriptor d(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  d.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, uid)
      .set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, kAlignment)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::span<const int64_t>(layout.dims))
      .set(CUDNN_ATTR_TENSOR_STRIDES, std::span<const int64_t>(layout.strides))
      .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, !in_memory)
      .set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, by_value)
      .finalize();
  tensors_.push_back({layout, std::move(d)});
  return tensors_.size() - 1;
}

CudnnGraph::Value CudnnGraph::in_memory(int64_t uid, const CudnnLayout& layout,
                                        cudnnDataType_t type) {
  return add(uid, layout, type, true, false);
}

CudnnGraph::Value CudnnGraph::number(int64_t uid) {
  return add(uid, packed({1, 1, 1, 1}), CUDNN_DATA_FLOAT, true, true);
}

CudnnGraph::Value CudnnGraph::temporary(const CudnnLayout& layout, cudnnDataType_t type) {
  return add(kFirstTemporary + static_cast<int64_t>(tensors_.size()), layout, type, false, false);
}

void CudnnGraph::add_pointwise(cudnnPointwiseMode_t mode, cudnnDataType_t precision, Value x,
                               std::optional<Value> b, std::optional<Value> t, Value y,
                               int64_t axis) {
  CudnnDescriptor& what = what_.emplace_back(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  what.set(CUDNN_ATTR_POINTWISE_MODE, mode).set(CUDNN_ATTR_POINTWISE_MATH_PREC, precision);
  if (axis >= 0) what.set(CUDNN_ATTR_POINTWISE_AXIS, axis);
  what.finalize();
  CudnnDescriptor& op = operations_.emplace_back(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, what)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_[x].descriptor)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_[y].descriptor);
  if (b) op.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensors_[*b].descriptor);
  if (t) op.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, tensors_[*t].descriptor);
  op.finalize();
}

CudnnGraph::Value CudnnGraph::pointwise(cudnnPointwiseMode_t mode, Value x, std::optional<Value> b,
                                        std::optional<Value> into) {
  const Value y = into ? *into : temporary(tensors_[x].layout, CUDNN_DATA_FLOAT);
  add_pointwise(mode, CUDNN_DATA_FLOAT, x, b, {}, y);
  return y;
}

CudnnGraph::Value CudnnGraph::index(int64_t axis, Value x) {
  const Value y = temporary(tensors_[x].layout, CUDNN_DATA_INT32);
  add_pointwise(CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, x, {}, {}, y, axis);
  return y;
}

CudnnGraph::Value CudnnGraph::at_least(Value a, Value b) {
  const Value y = temporary(tensors_[a].layout, CUDNN_DATA_BOOLEAN);
  add_pointwise(CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN, a, b, {}, y);
  return y;
}

CudnnGraph::Value CudnnGraph::select(Value where, Value x, Value otherwise) {
  const Value y = temporary(tensors_[x].layout, CUDNN_DATA_FLOAT);
  add_pointwise(CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, x, otherwise, where, y);
  return y;
}

void CudnnGraph::matmul_into(Value a, Value b, Value y) {
  CudnnDescriptor& what = what_.emplace_back(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  what.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT).finalize();
  operations_.emplace_back(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
      .set(CUDNN_ATTR_OPERATION_MATMUL_DESC, what)
      .set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, tensors_[a].descriptor)
      .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, tensors_[b].descriptor)
      .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, tensors_[y].descriptor)
      .finalize();
}

CudnnGraph::Value CudnnGraph::matmul(Value a, Value b, const CudnnLayout& layout,
                                     cudnnDataType_t type) {
  const Value y = temporary(layout, type);
  matmul_into(a, b, y);
  return y;
}

void CudnnGraph::reduce_into(cudnnReduceTensorOp_t op, Value x, Value y) {
  CudnnDescriptor& what = what_.emplace_back(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  what.set(CUDNN_ATTR_REDUCTION_OPERATOR, op)
      .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .finalize();
  operations_.emplace_back(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
      .set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, what)
      .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, tensors_[x].descriptor)
      .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, tensors_[y].descriptor)
      .finalize();
}

CudnnGraph::Value CudnnGraph::reduce(cudnnReduceTensorOp_t op, Value x, const CudnnLayout& layout) {
  const Value y = temporary(layout, CUDNN_DATA_FLOAT);
  reduce_into(op, x, y);
  return y;
}

CudnnGraph::Value CudnnGraph::reshape(Value x, const CudnnLayout& layout, cudnnDataType_t type) {
  const Value y = temporary(layout, type);
  operations_.emplace_back(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR)
      .set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, tensors_[x].descriptor)
      .set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, tensors_[y].descriptor)
      .finalize();
  return y;
}

CudnnDescriptor CudnnGraph::finish(cudnnHandle_t handle) const {
  CudnnDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, std::span<const CudnnDescriptor>(operations_));
  if (handle != nullptr) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle);
  graph.finalize();
  return graph;
}

}  // namespace qstep::ops
