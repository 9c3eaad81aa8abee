// A CPU backend whose memory the host can touch within an operation only, as if it were a GPU's:
// any other access ends the process with SIGSEGV. What runs on it reaches tensors through
// operations alone.
#pragma once

#include <sys/mman.h>

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

 private:
  void run(std::string_view, const std::function<void()>& f) override {
    const Open open;
    f();
  }
  static std::map<void*, size_t>& memory() {
    static std::map<void*, size_t> sizes;
    return sizes;
  }
  static void protect(int access) {
    for (const auto& [data, bytes] : memory()) {
      ops::check(mprotect(data, bytes, access) == 0, "mprotect");
    }
  }
  // While one lives, all memory can be touched.
  struct Open {
    Open() { protect(PROT_READ | PROT_WRITE); }
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
    ~Open() { protect(PROT_NONE); }
  };
};

}  // namespace qstep::test
