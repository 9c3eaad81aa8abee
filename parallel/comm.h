// A group of ranks that run the same program. The single-process world is the embedded default.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "ops/tensor.h"

namespace qstep::parallel {

enum class Reduce : uint8_t { kSum, kMax };

class Comm {
 public:
  virtual ~Comm() = default;
  virtual std::string_view name() const = 0;  // "single"
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // x[i] becomes the sum or maximum of x[i] over the ranks; FP32 or int32, contiguous.
  virtual void all_reduce(const ops::Tensor& x, Reduce reduce) = 0;
  // x of `root` reaches every rank.
  virtual void broadcast(const ops::Tensor& x, int root) = 0;
  virtual void barrier() = 0;
};

// One rank: every collective leaves its tensor as it is.
std::unique_ptr<Comm> make_single();

}  // namespace qstep::parallel
