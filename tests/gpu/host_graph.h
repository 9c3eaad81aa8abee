// A graph of operations (ops/cuda/cudnn_graph.h) that is computed on the host while it is
// described: what a library that follows the description would compute. Elements in FP64, rounded
// to the type that each tensor is described with.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <vector>

#include "ops/cuda/cudnn_graph.h"
#include "precision/bf16.h"

namespace qstep::test {

class HostGraph {
 public:
  using Value = size_t;
  using Layout = ops::CudnnLayout;
  using Index = std::array<int64_t, 4>;

  explicit HostGraph(const ops::CudnnArguments& arguments) {
    for (size_t i = 0; i < arguments.names.size(); ++i) {
      memory_[arguments.names[i]] = arguments.memory[i];
    }
  }

  Value in_memory(int64_t uid, const Layout& layout, cudnnDataType_t type) {
    return add({layout, type, memory_.at(uid), {}});
  }
  Value number(int64_t uid) { return in_memory(uid, ops::packed({1, 1, 1, 1}), CUDNN_DATA_FLOAT); }
  Value temporary(const Layout& layout, cudnnDataType_t type) {
    return add({layout, type, nullptr, {}});
  }

  Value pointwise(cudnnPointwiseMode_t mode, Value x, std::optional<Value> b = {},
                  std::optional<Value> into = {}) {
    const Value y = into ? *into : temporary(tensors_[x].layout, CUDNN_DATA_FLOAT);
    write(y, [&](const Index& i) { return result(mode, get(x, i), b ? get(*b, i) : 0.0); });
    return y;
  }
  Value index(int64_t axis, Value x) {
    const Value y = temporary(tensors_[x].layout, CUDNN_DATA_INT32);
    write(y, [&](const Index& i) { return static_cast<double>(i[static_cast<size_t>(axis)]); });
    return y;
  }
  Value at_least(Value a, Value b) {
    const Value y = temporary(tensors_[a].layout, CUDNN_DATA_BOOLEAN);
    write(y, [&](const Index& i) { return get(a, i) >= get(b, i) ? 1.0 : 0.0; });
    return y;
  }
  Value select(Value where, Value x, Value otherwise) {
    const Value y = temporary(tensors_[x].layout, CUDNN_DATA_FLOAT);
    write(y, [&](const Index& i) { return get(where, i) != 0 ? get(x, i) : get(otherwise, i); });
    return y;
  }

  // Heads of b that are fewer than a's serve neighbours.
  Value matmul(Value a, Value b, const Layout& layout, cudnnDataType_t type) {
    const Value y = temporary(layout, type);
    matmul_into(a, b, y);
    return y;
  }
  void matmul_into(Value a, Value b, Value y) {
    const int64_t n = tensors_[a].layout.dims[3];
    const int64_t group = tensors_[a].layout.dims[1] / tensors_[b].layout.dims[1];
    write(y, [&](const Index& i) {
      double sum = 0;
      for (int64_t k = 0; k < n; ++k) {
        sum += get(a, {i[0], i[1], i[2], k}) * get(b, {i[0], i[1] / group, k, i[3]});
      }
      return sum;
    });
  }

  // Over a dimension where y has one element, over neighbours where it has fewer than x.
  Value reduce(cudnnReduceTensorOp_t op, Value x, const Layout& layout) {
    const Value y = temporary(layout, CUDNN_DATA_FLOAT);
    reduce_into(op, x, y);
    return y;
  }
  void reduce_into(cudnnReduceTensorOp_t op, Value x, Value y) {
    const Index from = tensors_[x].layout.dims, to = tensors_[y].layout.dims;
    const bool highest = op == CUDNN_REDUCE_TENSOR_MAX;
    write(y, [&](const Index& i) {
      double found = highest ? -INFINITY : 0;
      Index n{}, at{};
      for (size_t d = 0; d < 4; ++d) n[d] = from[d] / to[d];
      for_each_index(n, [&](const Index& j) {
        for (size_t d = 0; d < 4; ++d) at[d] = i[d] * n[d] + j[d];
        found = highest ? std::max(found, get(x, at)) : found + get(x, at);
      });
      return found;
    });
  }

  // The same elements at the same offsets.
  Value reshape(Value x, const Layout& layout, cudnnDataType_t type) {
    std::map<int64_t, double> elements;
    for_each_index(tensors_[x].layout.dims,
                   [&](const Index& i) { elements[offset(tensors_[x].layout, i)] = get(x, i); });
    const Value y = temporary(layout, type);
    write(y, [&](const Index& i) { return elements.at(offset(layout, i)); });
    return y;
  }

 private:
  struct Tensor {
    Layout layout;
    cudnnDataType_t type;
    void* memory;                  // none: in `elements`
    std::vector<double> elements;  // dense, in the order of the dimensions
  };

  static int64_t offset(const Layout& l, const Index& i) {
    return i[0] * l.strides[0] + i[1] * l.strides[1] + i[2] * l.strides[2] + i[3] * l.strides[3];
  }
  static size_t dense(const Layout& l, const Index& i) {
    return static_cast<size_t>(offset(ops::packed(l.dims), i));
  }
  template <class F>
  static void for_each_index(const Index& n, const F& f) {
    for (Index i{}; i[0] < n[0]; ++i[0]) {
      for (i[1] = 0; i[1] < n[1]; ++i[1]) {
        for (i[2] = 0; i[2] < n[2]; ++i[2]) {
          for (i[3] = 0; i[3] < n[3]; ++i[3]) f(i);
        }
      }
    }
  }

  static double result(cudnnPointwiseMode_t mode, double x, double b) {
    switch (mode) {
      case CUDNN_POINTWISE_ADD:
        return x + b;
      case CUDNN_POINTWISE_SUB:
        return x - b;
      case CUDNN_POINTWISE_MUL:
        return x * b;
      case CUDNN_POINTWISE_DIV:
        return x / b;
      case CUDNN_POINTWISE_EXP:
        return std::exp(x);
      case CUDNN_POINTWISE_LOG:
        return std::log(x);
      default:
        ops::check(false, "HostGraph: unknown operation");
        return 0;
    }
  }

  Value add(Tensor t) {
    const Index& n = t.layout.dims;
    if (t.memory == nullptr) t.elements.resize(static_cast<size_t>(n[0] * n[1] * n[2] * n[3]));
    tensors_.push_back(std::move(t));
    return tensors_.size() - 1;
  }

  // A dimension of one element serves every index.
  double get(Value v, Index i) const {
    const Tensor& t = tensors_[v];
    for (size_t d = 0; d < 4; ++d) {
      if (t.layout.dims[d] == 1) i[d] = 0;
    }
    if (t.memory == nullptr) return t.elements[dense(t.layout, i)];
    if (t.type == CUDNN_DATA_FLOAT) return static_cast<const float*>(t.memory)[offset(t.layout, i)];
    return precision::to_float(static_cast<const precision::Bf16*>(t.memory)[offset(t.layout, i)]);
  }
  template <class F>
  void write(Value v, const F& f) {
    for_each_index(tensors_[v].layout.dims, [&](const Index& i) { put(v, i, f(i)); });
  }
  void put(Value v, const Index& i, double exact) {
    Tensor& t = tensors_[v];
    const auto x = static_cast<float>(exact);
    const auto as_bf16 = precision::to_bf16(x);
    if (t.memory == nullptr) {
      t.elements[dense(t.layout, i)] =
          t.type == CUDNN_DATA_BFLOAT16 ? precision::to_float(as_bf16) : x;
    } else if (t.type == CUDNN_DATA_FLOAT) {
      static_cast<float*>(t.memory)[offset(t.layout, i)] = x;
    } else {
      static_cast<precision::Bf16*>(t.memory)[offset(t.layout, i)] = as_bf16;
    }
  }

  std::map<int64_t, void*> memory_;
  std::vector<Tensor> tensors_;
};

}  // namespace qstep::test
