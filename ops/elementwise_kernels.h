// Cast and add (ops/elementwise.h) for the CUDA backend; the bits of the CPU's.
// Per element: cast reads x and writes y, add reads each addend and writes y.
#pragma once

#include <algorithm>
#include <span>
#include <utility>

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

struct SumFromTheLast {
  QSTEP_HD float operator()(float x) const { return x; }
  template <class... More>
  QSTEP_HD float operator()(float x, More... more) const {
    return x + (*this)(more...);
  }
};

template <class T, size_t kAddends>
struct Add {
  Rows<T> y;
  Rows<const T> x[kAddends];

  QSTEP_HD void operator()(int64_t row, int64_t g) const {
    store(y.row(row), g, sum(row, g, std::make_index_sequence<kAddends>()));
  }

 private:
  template <size_t... i>
  QSTEP_HD Group sum(int64_t row, int64_t g, std::index_sequence<i...>) const {
    return map_rows(SumFromTheLast(), g, x[i].row(row)...);
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
void add(const Launch& launch, const Tensor& y_view, std::span<const Tensor> x) {
  check_add(y_view, x);
  const bool flat = y_view.contiguous() && std::ranges::all_of(x, &Tensor::contiguous);
  const Tensor y = flattened(y_view, flat);
  dispatch_float(y.dtype, [&]<class T>(T) {
    dispatch_addends(x.size(), [&]<size_t kAddends>() {
      Add<T, kAddends> sum{rows_of<T>(y), {}};
      for (size_t i = 0; i < kAddends; ++i) sum.x[i] = rows_of<const T>(flattened(x[i], flat));
      over_groups(launch, y.rows, y.cols, sum);
    });
  });
}

}  // namespace qstep::ops::device
