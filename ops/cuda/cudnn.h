// The functions of cuDNN that the CUDA backend calls, from the library as it is found at run time,
// and the descriptors of its graph API ("backend API", cuDNN's API reference, chapter Graph).
#pragma once

#include <cudnn_graph.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/cuda/shared_library.h"

namespace qstep::ops {

// version: 91900 is 9.19.0.
#define QSTEP_CUDNN_FUNCTIONS(row)                        \
  row(version, cudnnGetVersion);                          \
  row(status_string, cudnnGetErrorString);                \
  row(last_error, cudnnGetLastErrorString);               \
  row(create, cudnnCreate);                               \
  row(destroy, cudnnDestroy);                             \
  row(set_stream, cudnnSetStream);                        \
  row(descriptor_create, cudnnBackendCreateDescriptor);   \
  row(descriptor_destroy, cudnnBackendDestroyDescriptor); \
  row(set_attribute, cudnnBackendSetAttribute);           \
  row(get_attribute, cudnnBackendGetAttribute);           \
  row(finalize, cudnnBackendFinalize);                    \
  row(execute, cudnnBackendExecute);

struct Cudnn {
  QSTEP_CUDNN_FUNCTIONS(QSTEP_LIBRARY_MEMBER)

  std::string name() const;  // "cuDNN 9.19.0"
  // Throws an Error (gpu) with describe(status), unless status is success.
  void check(cudnnStatus_t status, std::string_view call) const;
  // "cuDNN 9.19.0: <call>: <status>: <the library's reason>"
  std::string describe(cudnnStatus_t status, std::string_view call) const;
};

// Opened at the first call; an Error (gpu) where it is missing or too old.
const Cudnn& cudnn();

// The graph API's name of a C++ type.
template <class T>
inline constexpr cudnnBackendAttributeType_t kCudnnType =
    [] { static_assert(sizeof(T) == 0, "no attribute of cuDNN has this type"); }();
template <>
inline constexpr auto kCudnnType<bool> = CUDNN_TYPE_BOOLEAN;
template <>
inline constexpr auto kCudnnType<char> = CUDNN_TYPE_CHAR;
template <>
inline constexpr auto kCudnnType<int64_t> = CUDNN_TYPE_INT64;
template <>
inline constexpr auto kCudnnType<void*> = CUDNN_TYPE_VOID_PTR;
template <>
inline constexpr auto kCudnnType<cudnnHandle_t> = CUDNN_TYPE_HANDLE;
template <>
inline constexpr auto kCudnnType<cudnnDataType_t> = CUDNN_TYPE_DATA_TYPE;
template <>
inline constexpr auto kCudnnType<cudnnPointwiseMode_t> = CUDNN_TYPE_POINTWISE_MODE;
template <>
inline constexpr auto kCudnnType<cudnnReduceTensorOp_t> = CUDNN_TYPE_REDUCTION_OPERATOR_TYPE;
template <>
inline constexpr auto kCudnnType<cudnnBackendHeurMode_t> = CUDNN_TYPE_HEUR_MODE;
template <>
inline constexpr auto kCudnnType<cudnnBackendNumericalNote_t> = CUDNN_TYPE_NUMERICAL_NOTE;
template <>
inline constexpr auto kCudnnType<cudnnBackendKnobType_t> = CUDNN_TYPE_KNOB_TYPE;

// One descriptor: attributes are set, then it is finalized, then it may be read and used by others.
// Those that it refers to may go once it is finalized. A refusal of the library is an Error (gpu).
class CudnnDescriptor {
 public:
  explicit CudnnDescriptor(cudnnBackendDescriptorType_t type);

  template <class T>
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, const T& value) {
    return set(name, kCudnnType<T>, 1, &value);
  }
  template <class T>
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, std::span<const T> values) {
    return set(name, kCudnnType<T>, static_cast<int64_t>(values.size()), values.data());
  }
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, const CudnnDescriptor& value);
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, std::span<const CudnnDescriptor> values);

  CudnnDescriptor& finalize();
  // For what a library may well refuse; cudnn().describe() says why.
  cudnnStatus_t try_finalize();

  template <class T>
  T get(cudnnBackendAttributeName_t name) const {
    T value{};
    get(name, kCudnnType<T>, 1, &value);
    return value;
  }
  template <class T>
  std::vector<T> get_all(cudnnBackendAttributeName_t name) const {
    std::vector<T> values(static_cast<size_t>(get(name, kCudnnType<T>, 0, nullptr)));
    const auto count = static_cast<int64_t>(values.size());
    if (count > 0)
      values.resize(static_cast<size_t>(get(name, kCudnnType<T>, count, values.data())));
    return values;
  }
  // Descriptors of `type` that are behind an attribute.
  std::vector<CudnnDescriptor> get_descriptors(cudnnBackendAttributeName_t name,
                                               cudnnBackendDescriptorType_t type) const;

  cudnnBackendDescriptor_t raw() const { return value_.get(); }

 private:
  struct Destroy {
    void operator()(void* descriptor) const { (void)cudnn().descriptor_destroy(descriptor); }
  };
  CudnnDescriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                       int64_t count, const void* values);
  // The number of elements that there are.
  int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
              void* values) const;

  cudnnBackendDescriptorType_t type_;
  std::unique_ptr<void, Destroy> value_;
};

}  // namespace qstep::ops
