#include "trainer/quantizers/host_tensors.h"

#include <algorithm>
#include <utility>

#include "ops/arena.h"
#include "ops/host_memory.h"

namespace qstep::trainer {

using ops::Arena;
using ops::QuantCall;
using ops::QuantizedTensor;
using ops::Tensor;

namespace {

// Places of a backend's memory for tensors of the host: measured, allocated and filled in one go.
class BackendCopies {
 public:
  BackendCopies(ops::Ops& ops, std::span<const Tensor> host) : ops_(ops) {
    for (const Tensor& x : host) {
      if (!x || has(x)) continue;  // two orientations may share their values
      ops::check(x.contiguous(), "a strided tensor of the host");
      host_.push_back(x);
    }
    Arena measure;
    lay_out(measure);
    memory_ = ops.allocate(measure.peak_bytes());
    Arena place(memory_);
    backend_ = lay_out(place);
    for (size_t i = 0; i < host_.size(); ++i) ops.upload(backend_[i], host_[i].data);
  }

  // What stands for a tensor of the host; empty for an empty one.
  Tensor of(const Tensor& host) const {
    if (!host) return {};
    return backend_[static_cast<size_t>(find(host) - host_.begin())];
  }
  void download() {
    for (size_t i = 0; i < host_.size(); ++i) ops_.download(host_[i].data, backend_[i]);
  }

 private:
  std::vector<Tensor>::const_iterator find(const Tensor& host) const {
    return std::find_if(host_.begin(), host_.end(),
                        [&](const Tensor& x) { return x.data == host.data; });
  }
  bool has(const Tensor& host) const { return find(host) != host_.end(); }
  std::vector<Tensor> lay_out(Arena& arena) const {
    std::vector<Tensor> tensors;
    for (const Tensor& x : host_) tensors.push_back(arena.take("copies", x.dtype, x.rows, x.cols));
    return tensors;
  }

  ops::Ops& ops_;
  std::vector<Tensor> host_, backend_;
  ops::Buffer memory_;
};

}  // namespace

HostTensors::HostTensors(ops::Ops& ops, std::vector<NamedTensor> tensors)
    : ops_(ops), backend_(std::move(tensors)), host_(backend_) {
  if (ops.in_host_memory()) return;
  const auto lay_out = [&](Arena& arena) {
    for (NamedTensor& named : host_) {
      const Tensor& x = named.tensor;
      named.tensor = arena.take("copies", x.dtype, x.rows, x.cols);
    }
  };
  Arena measure;
  lay_out(measure);
  memory_ = ops::allocate_host(measure.peak_bytes());
  Arena place(memory_);
  lay_out(place);
  for (size_t i = 0; i < host_.size(); ++i) {
    if (host_[i].tensor.size() > 0) ops.download(host_[i].tensor.data, backend_[i].tensor);
  }
}

void HostTensors::upload() {
  if (ops_.in_host_memory()) return;
  for (size_t i = 0; i < host_.size(); ++i) {
    if (host_[i].tensor.size() > 0) ops_.upload(backend_[i].tensor, host_[i].tensor.data);
  }
}

QuantizeFunction quantize_on_host(ops::Ops& ops) {
  if (ops.in_host_memory()) {
    return [&ops](const auto& rowwise, const auto& columnwise, const auto& x, const auto& call) {
      ops.quantize(rowwise, columnwise, x, call);
    };
  }
  return [&ops](const QuantizedTensor& rowwise, const QuantizedTensor& columnwise, const Tensor& x,
                const QuantCall& call) {
    std::vector<Tensor> host{x, call.amax, call.delayed_scale, call.delayed_amax, call.non_finite};
    for (const QuantizedTensor* q : {&rowwise, &columnwise}) {
      host.insert(host.end(), {q->values, q->scale, q->tile_scales});
    }
    BackendCopies copies(ops, host);
    const auto there = [&](QuantizedTensor q) {
      q.values = copies.of(q.values);
      q.scale = copies.of(q.scale);
      q.tile_scales = copies.of(q.tile_scales);
      return q;
    };
    QuantCall its_call = call;
    its_call.amax = copies.of(call.amax);
    its_call.delayed_scale = copies.of(call.delayed_scale);
    its_call.delayed_amax = copies.of(call.delayed_amax);
    its_call.non_finite = copies.of(call.non_finite);
    ops.quantize(there(rowwise), there(columnwise), copies.of(x), its_call);
    copies.download();
  };
}

}  // namespace qstep::trainer
