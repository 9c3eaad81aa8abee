#include "ops/cuda/shared_library.h"

#include <dlfcn.h>

#include "ops/error.h"

namespace qstep::ops {

SharedLibrary::SharedLibrary(std::initializer_list<const char*> files, const char* how_to_get) {
  std::string reason;
  for (const char* file : files) {
    handle_ = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
    file_ = file;
    if (handle_ != nullptr) return;
    if (reason.empty()) reason = dlerror();
  }
  throw Error(ExitCode::kGpu, fmt::format("{}: {}; put its folder into LD_LIBRARY_PATH, or train "
                                          "with run.device=cpu",
                                          reason, how_to_get));
}

void* SharedLibrary::symbol(const char* name) const {
  void* const found = dlsym(handle_, name);
  if (found == nullptr) {
    throw Error(ExitCode::kGpu,
                fmt::format("{} has no {}: a newer version is needed", file_, name));
  }
  return found;
}

}  // namespace qstep::ops
