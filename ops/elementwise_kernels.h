// Cast and add (ops/elementwise.h) for the CUDA backend; the bits of the CPU's.
// Per element: cast reads x and writes y, add reads two and writes one.
#pragma once

#include "ops/elementwise.h"
#include "ops/group.h"

namespace qstep::ops::device {

template <class Y, class X>
struct Cast {
  Rows<Y> y;
  Rows<const X> x;

  QSTEP_HD void operator()(int64_t row, int64_t g) const {
    store(y.row(row), g, load(x.row(row), g));
  }
};

template <class T>
struct Add {
  Rows<T> y;
  Rows<const T> a, b;

  QSTEP_HD void operator()(int64_t row, int64_t g) const {
    store(y.row(row), g,
          map_rows([](float u, float v) { return u + v; }, g, a.row(row), b.row(row)));
  }
};

// As one row where all are contiguous.
inline Tensor flattened(const Tensor& x, bool all_contiguous) {
  return all_contiguous ? x.reshape(1, x.size()) : x;
}

template <class Launch>
void cast(const Launch& launch, const Tensor& y_view, const Tensor& x_view) {
  check_cast(y_view, x_view);
  const bool flat = y_view.contiguous() && x_view.contiguous();
  const Tensor y = flattened(y_view, flat), x = flattened(x_view, flat);
  dispatch_float(y.dtype, [&]<class Y>(Y) {
    dispatch_float(x.dtype, [&]<class X>(X) {
      over_groups(launch, y.rows, y.cols, Cast<Y, X>{rows_of<Y>(y), rows_of<const X>(x)});
    });
  });
}

template <class Launch>
void add(const Launch& launch, const Tensor& y_view, const Tensor& a_view, const Tensor& b_view) {
  check_add(y_view, a_view, b_view);
  const bool flat = y_view.contiguous() && a_view.contiguous() && b_view.contiguous();
  const Tensor y = flattened(y_view, flat), a = flattened(a_view, flat),
               b = flattened(b_view, flat);
  dispatch_float(y.dtype, [&]<class T>(T) {
    over_groups(launch, y.rows, y.cols,
                Add<T>{rows_of<T>(y), rows_of<const T>(a), rows_of<const T>(b)});
  });
}

}  // namespace qstep::ops::device
