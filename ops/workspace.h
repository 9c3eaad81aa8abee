// Scratch memory of one backend: grows to the largest request (during the first step) and stays.
// Whoever asks owns it until the next request.
#pragma once

#include <cstdint>

#include "ops/host_memory.h"

namespace qstep::ops {

class Workspace {
 public:
  template <class T>
  T* take(int64_t count) {
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (bytes > buffer_.bytes()) buffer_ = allocate_host(bytes);
    return static_cast<T*>(buffer_.data());
  }
  int64_t capacity() const { return buffer_.bytes(); }

 private:
  Buffer buffer_;
};

}  // namespace qstep::ops
