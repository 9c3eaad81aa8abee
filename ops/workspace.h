// Scratch memory of one backend: grows to the largest request (during the first step) and stays.
// Whoever asks owns it until the next request.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "ops/error.h"

namespace qstep::ops {

class Workspace {
 public:
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(bytes(count * static_cast<int64_t>(sizeof(T))));
  }
  int64_t capacity() const { return capacity_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };

  void* bytes(int64_t n) {
    if (n > capacity_) {
      const int64_t rounded = (n + 4095) / 4096 * 4096;
      data_.reset(std::aligned_alloc(4096, static_cast<size_t>(rounded)));
      if (!data_) {
        throw Error(ExitCode::kOutOfMemory, fmt::format("workspace: cannot allocate {} bytes", n));
      }
      capacity_ = rounded;
    }
    return data_.get();
  }

  std::unique_ptr<void, Free> data_;
  int64_t capacity_ = 0;
};

}  // namespace qstep::ops
