#include "ops/activation.h"

#include "ops/parallel_for.h"
#include "ops/simd.h"

namespace qstep::ops::cpu {

namespace {

constexpr float kTwoSqrt2OverPi = 1.59576912f;  // 2 sqrt(2 / pi)
constexpr float kCubic = 0.044715f;

[[gnu::always_inline]] inline F32x16 gelu(F32x16 x) {
  const F32x16 inner = fma(broadcast(kCubic) * x * x, x, x);
  return x * sigmoid(broadcast(kTwoSqrt2OverPi) * inner);
}

// From 16 on the slope is 0 or 1 to the last bit; clamping keeps 0 * infinity out of x^2. The order
// of the arguments of min and max lets a NaN through.
[[gnu::always_inline]] inline F32x16 gelu_slope(F32x16 x) {
  const F32x16 one = broadcast(1.0f);
  const F32x16 z = min(broadcast(16.0f), max(broadcast(-16.0f), x));
  const F32x16 square = z * z;
  const F32x16 s = sigmoid(broadcast(kTwoSqrt2OverPi) * fma(broadcast(kCubic) * square, z, z));
  const F32x16 inner_slope =
      broadcast(kTwoSqrt2OverPi) * fma(broadcast(3.0f * kCubic), square, one);
  return fma(z * inner_slope, s * (one - s), s);
}

inline F32x16 relu(F32x16 x) { return max(broadcast(0.0f), x); }  // a NaN stays one

template <class T, class F>
void map_row(T* y, const T* x, int64_t n, F&& f) {
  for_each_group(n,
                 [&](int64_t i, int64_t lanes) { store_n(y + i, f(load_n(x + i, lanes)), lanes); });
}

template <class T, class F>
void map_row(T* z, const T* x, const T* y, int64_t n, F&& f) {
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    store_n(z + i, f(load_n(x + i, lanes), load_n(y + i, lanes)), lanes);
  });
}

template <class T>
void swiglu_backward_row(T* dg, T* dv, const T* dy, const T* g, const T* v, int64_t n) {
  const F32x16 one = broadcast(1.0f);
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    const F32x16 d = load_n(dy + i, lanes);
    const F32x16 gi = load_n(g + i, lanes);
    const F32x16 vi = load_n(v + i, lanes);
    const F32x16 s = sigmoid(gi);
    store_n(dg + i, d * vi * s * fma(gi, one - s, one), lanes);
    store_n(dv + i, d * (gi * s), lanes);
  });
}

template <class T>
void forward_row(T* y, const T* x, int64_t n, Activation kind) {
  switch (kind) {
    case Activation::kGelu:
      return map_row(y, x, n, [](F32x16 v) { return gelu(v); });
    case Activation::kRelu2:
      return map_row(y, x, n, [](F32x16 v) { return relu(v) * relu(v); });
    case Activation::kSwiglu:
      return map_row(y, x, x + n, n, [](F32x16 g, F32x16 v) { return g * sigmoid(g) * v; });
  }
}

template <class T>
void backward_row(T* dx, const T* dy, const T* x, int64_t n, Activation kind) {
  switch (kind) {
    case Activation::kGelu:
      return map_row(dx, dy, x, n, [](F32x16 d, F32x16 v) { return d * gelu_slope(v); });
    case Activation::kRelu2:
      return map_row(dx, dy, x, n,
                     [](F32x16 d, F32x16 v) { return d * (broadcast(2.0f) * relu(v)); });
    case Activation::kSwiglu:
      return swiglu_backward_row(dx, dx + n, dy, x, x + n, n);
  }
}

}  // namespace

void activation_forward(const Tensor& y, const Tensor& x, Activation kind) {
  check_activation_forward(y, x, kind);
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const py = y.as<T>();
    const T* const px = x.as<T>();
    parallel_for(x.rows,
                 [&](int64_t n) { forward_row(py + n * y.ld, px + n * x.ld, y.cols, kind); });
  });
}

void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind) {
  check_activation_backward(dx, dy, x, kind);
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const pdx = dx.as<T>();
    const T* const pdy = dy.as<T>();
    const T* const px = x.as<T>();
    parallel_for(x.rows, [&](int64_t n) {
      backward_row(pdx + n * dx.ld, pdy + n * dy.ld, px + n * x.ld, dy.cols, kind);
    });
  });
}

}  // namespace qstep::ops::cpu
