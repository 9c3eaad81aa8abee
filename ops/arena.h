// Buffers own memory, arenas carve it. The code that lays tensors out runs twice: on a measuring
// arena, which hands out addresses of nothing and counts, and on one that places.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/tensor.h"

namespace qstep::ops {

// Owns bytes of one backend; freed by the backend's own function.
class Buffer {
 public:
  using Free = void (*)(void*);
  Buffer() = default;
  Buffer(void* data, int64_t bytes, Free free) : data_(data), bytes_(bytes), free_(free) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) free_(data_);
  }

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
  }
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Free free_ = nullptr;
};

class Arena {
 public:
  Arena() = default;  // measures
  explicit Arena(const Buffer& buffer)
      : base_(static_cast<char*>(buffer.data())), capacity_(buffer.bytes()) {}

  bool measuring() const { return base_ == nullptr; }

  // A contiguous matrix, 64-byte aligned. `owner` names the row of the memory table it counts
  // under. An Error (config) where the arena would grow beyond what can be counted.
  Tensor take(std::string_view owner, Dtype dtype, int64_t rows, int64_t cols);

  // Everything taken while a Scope lives is given back at its end: scratch that does not overlap in
  // time shares memory. The measure is the high-water mark.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), used_(arena.used_), n_live_(arena.live_.size()) {}
    ~Scope() { arena_.release(used_, n_live_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    int64_t used_;
    size_t n_live_;
  };

  int64_t peak_bytes() const { return peak_; }
  // The most bytes each owner held at once.
  const std::map<std::string, int64_t, std::less<>>& bytes_by_owner() const {
    return peak_by_owner_;
  }

 private:
  using Bytes = std::map<std::string, int64_t, std::less<>>;

  void release(int64_t used, size_t n_live);

  char* base_ = nullptr;
  int64_t capacity_ = 0;
  int64_t used_ = 0;
  int64_t peak_ = 0;
  std::vector<std::pair<std::string, int64_t>> live_;  // owner and bytes, in the order taken
  Bytes by_owner_;
  Bytes peak_by_owner_;
};

}  // namespace qstep::ops
