#include "ops/activation.h"

#include "ops/activation_math.h"
#include "ops/parallel_for.h"
#include "ops/row_amax.h"

namespace qstep::ops::cpu {

namespace {

namespace math = activation_math;

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
  for_each_group(n, [&](int64_t i, int64_t lanes) {
    const auto gradient =
        math::swiglu_gradient(load_n(dy + i, lanes), load_n(g + i, lanes), load_n(v + i, lanes));
    store_n(dg + i, gradient.dg, lanes);
    store_n(dv + i, gradient.dv, lanes);
  });
}

template <class T>
void forward_row(T* y, const T* x, int64_t n, Activation kind) {
  switch (kind) {
    case Activation::kGelu:
      return map_row(y, x, n, [](F32x16 v) { return math::gelu(v); });
    case Activation::kRelu2:
      return map_row(y, x, n, [](F32x16 v) { return math::relu2(v); });
    case Activation::kSwiglu:
      return map_row(y, x, x + n, n, [](F32x16 g, F32x16 v) { return math::swiglu(g, v); });
  }
}

template <class T>
void backward_row(T* dx, const T* dy, const T* x, int64_t n, Activation kind) {
  switch (kind) {
    case Activation::kGelu:
      return map_row(dx, dy, x, n, [](F32x16 d, F32x16 v) { return d * math::gelu_slope(v); });
    case Activation::kRelu2:
      return map_row(dx, dy, x, n, [](F32x16 d, F32x16 v) { return d * math::relu2_slope(v); });
    case Activation::kSwiglu:
      return swiglu_backward_row(dx, dx + n, dy, x, x + n, n);
  }
}

}  // namespace

void activation_forward(const Tensor& y, const Tensor& x, Activation kind, const Tensor& amax) {
  check_activation_forward(y, x, kind);
  const OutputAmax largest(amax, "activation_forward: amax");
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const py = y.as<T>();
    const T* const px = x.as<T>();
    parallel_for(x.rows, [&](int64_t n) {
      forward_row(py + n * y.ld, px + n * x.ld, y.cols, kind);
      largest.add(py + n * y.ld, y.cols);
    });
  });
}

void activation_backward(const Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind,
                         const Tensor& amax) {
  check_activation_backward(dx, dy, x, kind);
  const OutputAmax largest(amax, "activation_backward: amax");
  dispatch_float(x.dtype, [&](auto tag) {
    using T = decltype(tag);
    T* const pdx = dx.as<T>();
    const T* const pdy = dy.as<T>();
    const T* const px = x.as<T>();
    parallel_for(x.rows, [&](int64_t n) {
      backward_row(pdx + n * dx.ld, pdy + n * dy.ld, px + n * x.ld, dy.cols, kind);
      largest.add(pdx + n * dx.ld, dx.cols);
    });
  });
}

}  // namespace qstep::ops::cpu
