// What every rank can compute of every other: inputs by seed and rank, and plain reductions of
// them that share nothing with the product.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "ops/tensor.h"
#include "parallel/comm.h"

namespace qstep::parallel {

using ops::Dtype;
using ops::Tensor;
using Bytes = std::vector<std::byte>;

// A hash of its arguments: SplitMix64 (Steele, Lea, Flood, 2014).
inline uint64_t random_bits(uint64_t seed, uint64_t i) {
  uint64_t z = seed * 0xD1342543DE82EF95u + (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}
inline int64_t random_integer(uint64_t seed, uint64_t i, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random_bits(seed, i) % static_cast<uint64_t>(high - low + 1));
}

// n random elements: any integers; numbers of either sign from 2^-8 to 2^8, whose sums differ from
// order to order.
inline Bytes random_elements(Dtype dtype, int64_t n, uint64_t seed) {
  Bytes bytes(static_cast<size_t>(n * ops::size_bytes(dtype)));
  const auto element = static_cast<size_t>(ops::size_bytes(dtype));
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    const auto h = static_cast<uint32_t>(random_bits(seed, i));
    uint32_t bits = h;
    if (dtype == Dtype::kF32) bits = (h & 0x807FFFFFu) | ((119 + (h >> 23 & 15)) << 23);
    if (dtype == Dtype::kBf16) bits = (h & 0x807Fu) | ((119 + (h >> 7 & 15)) << 7);
    std::memcpy(bytes.data() + i * element, &bits, element);
  }
  return bytes;
}

// A tensor at an address that is a multiple of its element's size only, between sentinels.
class Field {
 public:
  Field(Dtype dtype, int64_t n, int64_t shift = 1)
      : memory_(static_cast<size_t>((n + 2 * kGuard) * ops::size_bytes(dtype)), kSentinel),
        tensor_(
            ops::matrix(memory_.data() + (kGuard + shift) * ops::size_bytes(dtype), dtype, 1, n)) {}
  Field(Dtype dtype, const Bytes& elements, int64_t shift = 1)
      : Field(dtype, static_cast<int64_t>(elements.size()) / ops::size_bytes(dtype), shift) {
    if (!elements.empty()) std::memcpy(tensor_.data, elements.data(), elements.size());
  }
  operator const Tensor&() const { return tensor_; }

  Bytes bytes() const {
    const auto* const first = static_cast<const std::byte*>(tensor_.data);
    return {first, first + tensor_.bytes()};
  }
  void expect(const Bytes& expected, std::string_view what) const {
    const Bytes found = bytes();
    const auto at = std::mismatch(expected.begin(), expected.end(), found.begin(), found.end());
    EXPECT_TRUE(expected == found)
        << what << ": byte " << at.first - expected.begin() << " of " << expected.size();
    const auto* const first = static_cast<const std::byte*>(tensor_.data);
    const auto* const end = first + tensor_.bytes();
    const auto* const memory_end = memory_.data() + memory_.size();
    const auto is_sentinel = [](std::byte b) { return b == kSentinel; };
    EXPECT_TRUE(std::all_of(memory_.data(), first, is_sentinel) &&
                std::all_of(end, memory_end, is_sentinel))
        << what << ": wrote outside the tensor";
  }

 private:
  static constexpr int64_t kGuard = 64;  // elements
  static constexpr std::byte kSentinel{0xA5};
  Bytes memory_;
  Tensor tensor_;
};

// The tree of a group of n: its left half is the largest full tree that leaves something.
template <class T, class Op>
T tree(const T* x, size_t n, Op op) {
  if (n == 1) return x[0];
  const size_t left = std::bit_floor(n - 1);
  return op(tree(x, left, op), tree(x + left, n - left, op));
}

template <class T>
T element(const Bytes& bytes, size_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}

// Of what the ranks 0, 1, ... hold.
inline Bytes reduced(const std::vector<Bytes>& inputs, Dtype dtype, Reduce reduce) {
  Bytes result(inputs[0].size());
  const auto combine = [&](auto zero) {
    using T = decltype(zero);
    const auto n = result.size() / static_cast<size_t>(ops::size_bytes(dtype));
    std::vector<T> x(inputs.size());
    for (size_t i = 0; i < n; ++i) {
      for (size_t r = 0; r < inputs.size(); ++r) {
        if constexpr (std::is_same_v<T, float>) {
          x[r] = dtype == Dtype::kBf16 ? precision::to_float(element<ops::Bf16>(inputs[r], i))
                                       : element<float>(inputs[r], i);
        } else {
          x[r] = element<T>(inputs[r], i);
        }
      }
      const auto sum = [](T a, T b) {
        if constexpr (std::is_same_v<T, int32_t>) {  // wraps
          return static_cast<T>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
        } else {
          return a + b;
        }
      };
      const T value = reduce == Reduce::kSum ? tree(x.data(), x.size(), sum)
                                             : *std::max_element(x.begin(), x.end());
      if (dtype == Dtype::kBf16) {
        const ops::Bf16 rounded = precision::to_bf16(static_cast<float>(value));
        std::memcpy(result.data() + i * sizeof rounded, &rounded, sizeof rounded);
      } else {
        std::memcpy(result.data() + i * sizeof value, &value, sizeof value);
      }
    }
  };
  if (dtype == Dtype::kI32) {
    combine(int32_t{});
  } else {
    combine(float{});
  }
  return result;
}

// Cuts n elements into n_parts at random; some parts are empty.
inline std::vector<int64_t> random_bounds(int64_t n, int n_parts, uint64_t seed) {
  std::vector<int64_t> bounds(static_cast<size_t>(n_parts) + 1);
  for (size_t i = 1; i < bounds.size(); ++i) bounds[i] = random_integer(seed, i, 0, n);
  bounds.back() = n;
  if (n_parts > 2 && seed % 3 == 0) bounds[1] = bounds[2];
  std::sort(bounds.begin(), bounds.end());
  return bounds;
}

}  // namespace qstep::parallel
