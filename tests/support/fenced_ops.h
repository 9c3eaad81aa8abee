// A CPU backend whose memory the host can touch within an operation only, as if it were a GPU's:
// any other access ends the process with SIGSEGV. What runs on it reaches tensors through
// operations alone, and hands no other memory to them: an Error where it does.
#pragma once

#include <sys/mman.h>

#include <iterator>
#include <map>

#include "tests/support/wrapped_ops.h"

namespace qstep::test {

class FencedOps final : public WrappedOps {
 public:
  std::string_view name() const override { return "fenced"; }
  ops::Buffer allocate(int64_t bytes) override {
    if (bytes == 0) return {};
    void* const data =
        mmap(nullptr, static_cast<size_t>(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ops::check(data != MAP_FAILED, "mmap");
    memory()[data] = static_cast<size_t>(bytes);
    return {data, bytes, [](void* p) {
              munmap(p, memory().at(p));
              memory().erase(p);
            }};
  }

  // What a device does beside its operations: while one lives, all memory can be touched.
  struct Open {
    Open() {
      if (depth()++ == 0) protect(PROT_READ | PROT_WRITE);
    }
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
    ~Open() {
      if (--depth() == 0) protect(PROT_NONE);
    }
  };
  // What an operation uses by itself is the device's, too.
  static bool in_operation() { return depth() > 0; }
  // Whether this memory is behind the fence.
  static bool is_own(const Tensor& x) {
    const auto* const first = static_cast<const char*>(x.data);
    const int64_t bytes = ((x.rows - 1) * x.ld + x.cols) * ops::size_bytes(x.dtype);
    const auto above = memory().upper_bound(x.data);
    if (above == memory().begin()) return false;
    const auto& [data, size] = *std::prev(above);
    return first + bytes <= static_cast<const char*>(data) + size;
  }

 private:
  void look_at(std::string_view call, const Tensors& tensors) override {
    for (const Tensor& x : tensors) {
      if (x.data != nullptr && x.size() > 0) ops::check(is_own(x), call);
    }
  }
  void run(std::string_view, const std::function<void()>& f) override {
    const Open open;
    f();
  }
  static std::map<const void*, size_t>& memory() {
    static std::map<const void*, size_t> sizes;
    return sizes;
  }
  static int& depth() {
    static int depth = 0;
    return depth;
  }
  static void protect(int access) {
    for (const auto& [data, bytes] : memory()) {
      ops::check(mprotect(const_cast<void*>(data), bytes, access) == 0, "mprotect");
    }
  }
};

}  // namespace qstep::test
