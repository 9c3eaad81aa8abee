// The activations (ops/activation.h) for the CUDA backend. Per element of y, forward reads x (both
// halves for swiglu) and writes y; backward reads dy and x and writes dx.
#pragma once

#include "ops/activation.h"
#include "ops/activation_math.h"
#include "ops/output_amax.h"

namespace qstep::ops::device {

// f(row, group) for every group of [rows, cols], with the amax of what it stores; as OverGroups.
template <class T, class F>
struct OverGroupsWithAmax {
  F f;
  int64_t groups, teams_per_row;
  uint32_t* amax;  // null: not wanted

  template <class Team>
  QSTEP_HD void operator()(const Team& team, float*, int64_t index) const {
    const GroupSpan span = group_span(groups, teams_per_row, index);
    each_with_amax<T>(team, span.n, amax, [&](int64_t i) { return f(span.row, span.first + i); });
  }
};

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

  QSTEP_HD_INLINE uint32_t operator()(int64_t row, int64_t g) const {
    const Group out = map([](float v) { return activate<kKind>(v); }, load(x.row(row), g));
    store(y.row(row), g, out);
    return largest_bits(y.row(row), g, out);
  }
};

template <class T, Activation kKind>
struct ActivationBackward {
  Rows<T> dx;
  Rows<const T> dy, x;

  QSTEP_HD_INLINE uint32_t operator()(int64_t row, int64_t g) const {
    const Group out = map_rows([](float d, float v) { return d * activation_slope<kKind>(v); }, g,
                               dy.row(row), x.row(row));
    store(dx.row(row), g, out);
    return largest_bits(dx.row(row), g, out);
  }
};

template <class T>
struct SwigluForward {
  Rows<T> y;
  Rows<const T> gate, value;

  QSTEP_HD_INLINE uint32_t operator()(int64_t row, int64_t g) const {
    const Group out = map_rows([](float a, float v) { return activation_math::swiglu(a, v); }, g,
                               gate.row(row), value.row(row));
    store(y.row(row), g, out);
    return largest_bits(y.row(row), g, out);
  }
};

template <class T>
struct SwigluBackward {
  Rows<T> dgate, dvalue;
  Rows<const T> dy, gate, value;

  QSTEP_HD_INLINE uint32_t operator()(int64_t row, int64_t g) const {
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
    return precision::max_bits(largest_bits(dgate.row(row), g, da),
                               largest_bits(dvalue.row(row), g, dv));
  }
};

template <class Launch>
void activation_forward(const Launch& launch, const Tensor& y, const Tensor& x, Activation kind,
                        const Tensor& amax) {
  check_activation_forward(y, x, kind);
  uint32_t* const largest = start_amax(launch, amax, "activation_forward: amax");
  dispatch_float(x.dtype, [&]<class T>(T) {
    const int64_t width = y.cols;
    const auto map_rows = [&]<class F>(const F& f) {
      over_groups_by<OverGroupsWithAmax<T, F>>(launch, y.rows, width, f, largest);
    };
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
                         Activation kind, const Tensor& amax) {
  check_activation_backward(dx, dy, x, kind);
  uint32_t* const largest = start_amax(launch, amax, "activation_backward: amax");
  dispatch_float(x.dtype, [&]<class T>(T) {
    const int64_t width = dy.cols;
    const auto map_rows = [&]<class F>(const F& f) {
      over_groups_by<OverGroupsWithAmax<T, F>>(launch, dy.rows, width, f, largest);
    };
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
