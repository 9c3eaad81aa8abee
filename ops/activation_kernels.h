// The activations (ops/activation.h) for the CUDA backend. Per element of y, forward reads x (both
// halves for swiglu) and writes y; backward reads dy and x and writes dx.
#pragma once

#include "ops/activation.h"
#include "ops/activation_math.h"
#include "ops/group.h"

namespace qstep::ops::device {

// One of the functions of one number, and its slope.
template <Activation kKind>
QSTEP_HD_INLINE float activate(float x) {
  return kKind == Activation::kGelu ? activation_math::gelu(x) : activation_math::relu2(x);
}
template <Activation kKind>
QSTEP_HD_INLINE float activation_slope(float x) {
  return kKind == Activation::kGelu ? activation_math::gelu_slope(x)
                                    : activation_math::relu2_slope(x);
}

template <class T, Activation kKind>
struct ActivationForward {
  Rows<T> y;
  Rows<const T> x;

  QSTEP_HD void operator()(int64_t row, int64_t g) const {
    store(y.row(row), g, map([](float v) { return activate<kKind>(v); }, load(x.row(row), g)));
  }
};

template <class T, Activation kKind>
struct ActivationBackward {
  Rows<T> dx;
  Rows<const T> dy, x;

  QSTEP_HD void operator()(int64_t row, int64_t g) const {
    store(dx.row(row), g,
          map_rows([](float d, float v) { return d * activation_slope<kKind>(v); }, g, dy.row(row),
                   x.row(row)));
  }
};

template <class T>
struct SwigluForward {
  Rows<T> y;
  Rows<const T> gate, value;

  QSTEP_HD void operator()(int64_t row, int64_t g) const {
    store(y.row(row), g,
          map_rows([](float a, float v) { return activation_math::swiglu(a, v); }, g, gate.row(row),
                   value.row(row)));
  }
};

template <class T>
struct SwigluBackward {
  Rows<T> dgate, dvalue;
  Rows<const T> dy, gate, value;

  QSTEP_HD void operator()(int64_t row, int64_t g) const {
    Group in[3], da, dv;
    load_together(in, g, dy.row(row), gate.row(row), value.row(row));
    QSTEP_UNROLL(8)
    for (int i = 0; i < kGroup; ++i) {
      const auto gradient = activation_math::swiglu_gradient(in[0].v[i], in[1].v[i], in[2].v[i]);
      da.v[i] = gradient.dg;
      dv.v[i] = gradient.dv;
    }
    store(dgate.row(row), g, da);
    store(dvalue.row(row), g, dv);
  }
};

template <class Launch>
void activation_forward(const Launch& launch, const Tensor& y, const Tensor& x, Activation kind) {
  check_activation_forward(y, x, kind);
  dispatch_float(x.dtype, [&]<class T>(T) {
    const int64_t width = y.cols;
    const auto map_rows = [&](const auto& f) { over_groups(launch, y.rows, width, f); };
    switch (kind) {
      case Activation::kGelu:
        return map_rows(
            ActivationForward<T, Activation::kGelu>{rows_of<T>(y), rows_of<const T>(x)});
      case Activation::kRelu2:
        return map_rows(
            ActivationForward<T, Activation::kRelu2>{rows_of<T>(y), rows_of<const T>(x)});
      case Activation::kSwiglu:
        return map_rows(SwigluForward<T>{rows_of<T>(y), rows_of<const T>(x.col_range(0, width)),
                                         rows_of<const T>(x.col_range(width, width))});
    }
  });
}

template <class Launch>
void activation_backward(const Launch& launch, const Tensor& dx, const Tensor& dy, const Tensor& x,
                         Activation kind) {
  check_activation_backward(dx, dy, x, kind);
  dispatch_float(x.dtype, [&]<class T>(T) {
    const int64_t width = dy.cols;
    const auto map_rows = [&](const auto& f) { over_groups(launch, dy.rows, width, f); };
    const Rows<const T> dy_rows = rows_of<const T>(dy);
    switch (kind) {
      case Activation::kGelu:
        return map_rows(
            ActivationBackward<T, Activation::kGelu>{rows_of<T>(dx), dy_rows, rows_of<const T>(x)});
      case Activation::kRelu2:
        return map_rows(ActivationBackward<T, Activation::kRelu2>{rows_of<T>(dx), dy_rows,
                                                                  rows_of<const T>(x)});
      case Activation::kSwiglu:
        return map_rows(SwigluBackward<T>{
            rows_of<T>(dx.col_range(0, width)), rows_of<T>(dx.col_range(width, width)), dy_rows,
            rows_of<const T>(x.col_range(0, width)), rows_of<const T>(x.col_range(width, width))});
    }
  });
}

}  // namespace qstep::ops::device
