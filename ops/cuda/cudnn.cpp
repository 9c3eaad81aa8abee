#include "ops/cuda/cudnn.h"

#include "ops/error.h"

namespace qstep::ops {

std::string Cudnn::name() const {
  const size_t v = version();
  return fmt::format("cuDNN {}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

std::string Cudnn::describe(cudnnStatus_t status, std::string_view call) const {
  std::string reason(1024, '\0');
  last_error(reason.data(), reason.size());
  reason.resize(std::string_view(reason.c_str()).size());
  return fmt::format("{}: {}: {}{}{}", name(), call, status_string(status),
                     reason.empty() ? "" : ": ", reason);
}

void Cudnn::check(cudnnStatus_t status, std::string_view call) const {
  if (status == CUDNN_STATUS_SUCCESS) return;
  const auto code = status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
                        ? ExitCode::kOutOfMemory
                        : ExitCode::kGpu;
  throw Error(code, describe(status, call));
}

const Cudnn& cudnn() {
  static const Cudnn functions = [] {
    const SharedLibrary from({"libcudnn.so.9"},
                             "it is NVIDIA's package cudnn9-cuda-13, or the wheel "
                             "nvidia-cudnn-cu13");
    Cudnn found;
    QSTEP_CUDNN_FUNCTIONS(QSTEP_LIBRARY_FIND)
    return found;
  }();
  return functions;
}

namespace {

std::string call_on(std::string_view call, cudnnBackendDescriptorType_t type) {
  return fmt::format("{} of a descriptor of type {}", call, static_cast<int>(type));
}

}  // namespace

CudnnDescriptor::CudnnDescriptor(cudnnBackendDescriptorType_t type) : type_(type) {
  cudnnBackendDescriptor_t created = nullptr;
  cudnn().check(cudnn().descriptor_create(type, &created),
                call_on("cudnnBackendCreateDescriptor", type));
  value_.reset(created);
}

CudnnDescriptor& CudnnDescriptor::set(cudnnBackendAttributeName_t name,
                                      cudnnBackendAttributeType_t type, int64_t count,
                                      const void* values) {
  cudnn().check(cudnn().set_attribute(raw(), name, type, count, values),
                call_on(fmt::format("cudnnBackendSetAttribute {}", static_cast<int>(name)), type_));
  return *this;
}

CudnnDescriptor& CudnnDescriptor::set(cudnnBackendAttributeName_t name,
                                      const CudnnDescriptor& value) {
  return set(name, std::span(&value, 1));
}

CudnnDescriptor& CudnnDescriptor::set(cudnnBackendAttributeName_t name,
                                      std::span<const CudnnDescriptor> values) {
  std::vector<cudnnBackendDescriptor_t> raws;
  for (const CudnnDescriptor& d : values) raws.push_back(d.raw());
  return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raws.size()), raws.data());
}

cudnnStatus_t CudnnDescriptor::try_finalize() { return cudnn().finalize(raw()); }

CudnnDescriptor& CudnnDescriptor::finalize() {
  cudnn().check(try_finalize(), call_on("cudnnBackendFinalize", type_));
  return *this;
}

int64_t CudnnDescriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                             int64_t count, void* values) const {
  int64_t found = 0;
  cudnn().check(cudnn().get_attribute(raw(), name, type, count, &found, values),
                call_on(fmt::format("cudnnBackendGetAttribute {}", static_cast<int>(name)), type_));
  return found;
}

std::vector<CudnnDescriptor> CudnnDescriptor::get_descriptors(
    cudnnBackendAttributeName_t name, cudnnBackendDescriptorType_t type) const {
  int64_t count = get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
  std::vector<CudnnDescriptor> found;
  std::vector<cudnnBackendDescriptor_t> raws;  // the library fills descriptors that exist
  for (int64_t i = 0; i < count; ++i) raws.push_back(found.emplace_back(type).raw());
  if (count > 0) count = get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, raws.data());
  found.erase(found.begin() + count, found.end());
  return found;
}

}  // namespace qstep::ops
