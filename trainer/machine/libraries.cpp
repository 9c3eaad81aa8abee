#include "trainer/machine/libraries.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <omp.h>

#include <array>
#include <memory>

#include "ops/cpu_library.h"

namespace qstep::trainer {

namespace {

Library onednn() {
  const auto kernel = [](ops::Dtype dtype) {
    const std::string name = ops::gemm_kernel(dtype);
    return name.empty() ? std::string("none on this processor") : name;
  };
  return {.name = "oneDNN",
          .present = true,
          .version = ops::onednn_version(),
          .note = fmt::format("dispatches {}; matrix products: bf16 {}, fp32 {}",
                              ops::onednn_instructions(), kernel(ops::Dtype::kBf16),
                              kernel(ops::Dtype::kF32))};
}

Library openmp() {
  return {.name = "OpenMP",
          .present = true,
          .version = fmt::format("{}", _OPENMP),
          .note = fmt::format("{} threads", omp_get_max_threads())};
}

Library hdf5() {
  unsigned major = 0, minor = 0, patch = 0;
  H5get_libversion(&major, &minor, &patch);
  hbool_t thread_safe = false;
  H5is_library_threadsafe(&thread_safe);
  return {.name = "HDF5",
          .present = true,
          .version = fmt::format("{}.{}.{}", major, minor, patch),
          .note = thread_safe ? "thread-safe" : "not thread-safe: qstep calls it from one thread"};
}

Library sentencepiece() {
  return {.name = "SentencePiece",
          .present = true,
          .version = QSTEP_SENTENCEPIECE_VERSION,
          .note = "version at build time"};
}

struct Unload {
  void operator()(void* handle) const { dlclose(handle); }
};
using Handle = std::unique_ptr<void, Unload>;

// Version from a C function of the library; each knows its own signature.
template <class Signature>
Signature* function(void* handle, const char* name) {
  return reinterpret_cast<Signature*>(dlsym(handle, name));
}

// 1000 major + 10 minor, as CUDA counts.
std::string cuda_version(int code) { return fmt::format("{}.{}", code / 1000, code % 1000 / 10); }

std::string mpi_version(void* handle) {
  std::array<char, 8192> text{};  // more than MPI_MAX_LIBRARY_VERSION_STRING of Open MPI and MPICH
  int length = 0;
  const auto call = function<int(char*, int*)>(handle, "MPI_Get_library_version");
  if (call == nullptr || call(text.data(), &length) != 0) return "";
  const std::string_view all(text.data());
  return std::string(all.substr(0, all.find_first_of(",\n")));
}

std::string cuda_driver_version(void* handle) {
  int code = 0;
  const auto call = function<int(int*)>(handle, "cuDriverGetVersion");
  return call != nullptr && call(&code) == 0 ? "for CUDA " + cuda_version(code) : "";
}

std::string cublaslt_version(void* handle) {
  const auto call = function<size_t()>(handle, "cublasLtGetVersion");
  if (call == nullptr) return "";
  const size_t code = call();  // 10000 major + 100 minor + patch
  return fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

std::string cudnn_version(void* handle) {
  const auto call = function<size_t()>(handle, "cudnnGetVersion");
  if (call == nullptr) return "";
  const size_t code = call();  // 10000 major + 100 minor + patch since version 9
  return fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

std::string nccl_version(void* handle) {
  int code = 0;
  const auto call = function<int(int*)>(handle, "ncclGetVersion");
  if (call == nullptr || call(&code) != 0) return "";
  return fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

struct Wanted {
  const char* name;
  std::vector<const char*> files;
  std::string (*version)(void* handle);
  const char* how_to_get;
};

Library look_for(const Wanted& wanted) {
  Library library{.name = wanted.name, .present = false, .version = "", .note = ""};
  for (const char* file : wanted.files) {
    // What they allocate while loading stays theirs: unloading them would leak it.
    const Handle handle(dlopen(file, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE));
    if (!handle) continue;
    library.present = true;
    library.version = wanted.version(handle.get());
    library.note = file;
    return library;
  }
  library.note = fmt::format("{} not found; {}", wanted.files.front(), wanted.how_to_get);
  return library;
}

}  // namespace

std::vector<Library> linked_libraries() { return {onednn(), openmp(), hdf5(), sentencepiece()}; }

Library mpi_library() {
  return look_for({"MPI",
                   {"libmpi.so.40", "libmpi.so.12", "libmpi.so"},
                   mpi_version,
                   "apt install libopenmpi-dev openmpi-bin"});
}

std::vector<Library> gpu_libraries() {
  const std::vector<Wanted> list = {
      {"CUDA driver", {"libcuda.so.1"}, cuda_driver_version, "needs an NVIDIA GPU and its driver"},
      {"cuBLASLt",
       {"libcublasLt.so.13", "libcublasLt.so.12"},
       cublaslt_version,
       "comes with the CUDA toolkit"},
      {"cuDNN", {"libcudnn.so.9"}, cudnn_version, "NVIDIA's package libcudnn9-cuda-13"},
      {"NCCL", {"libnccl.so.2"}, nccl_version, "NVIDIA's package libnccl2"},
  };
  std::vector<Library> found;
  for (const Wanted& wanted : list) found.push_back(look_for(wanted));
  return found;
}

std::vector<Library> optional_libraries() {
  std::vector<Library> all = gpu_libraries();
  all.insert(all.begin(), mpi_library());
  return all;
}

}  // namespace qstep::trainer
