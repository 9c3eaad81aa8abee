// The CPU's operations behind a recorder, as a GPU's behind CUDA graphs (ops/cuda/cuda_recorder.h):
// what is recorded runs when all of it is there, and again with the arguments it had, but for the
// moment. At a device's pace, whose clock makes the marks that were recorded. A quantizer that asks
// its tensor group for an amax is several calls, as on a GPU.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "ops/recorder.h"
#include "tests/support/group_amaxes.h"
#include "tests/support/paced_device.h"

namespace qstep::test {

class RecordingOps final : public WrappedOps, public ops::Recorder {
 public:
  std::string_view name() const override { return "recording"; }
  ops::DeviceClock* clock() override { return &clock_; }
  ops::Recorder* recorder() override { return this; }
  ops::Buffer allocate(int64_t bytes) override {
    ops::check(recorded_ == nullptr, "memory is taken while calls are recorded");
    return inner_->allocate(bytes);
  }

  std::unique_ptr<ops::Capture> begin() override { return std::make_unique<Keeping>(*this); }

  // What a GPU does when its scratch memory grows.
  void move_memory() { ++memory_version_; }

  // Up to now: calls of the trainer that ran as they were made, recordings, and the runs of them
  // but for the first.
  std::vector<std::string_view> direct_calls;
  int64_t n_recordings = 0, n_runs = 0;
  // Quantizations, recorded or not.
  int64_t n_quantized = 0;

  void quantize(const ops::QuantizedTensor& rowwise, const ops::QuantizedTensor& columnwise,
                const Tensor& x, const ops::QuantCall& call) override {
    if (recorded_ != nullptr && call.join != nullptr) {
      return quantize_in_group(rowwise, columnwise, x, call);
    }
    run("quantize", [=, this] {
      ops::QuantCall now = call;
      if (moment_) now.random = at(call.random, *moment_);
      ++n_quantized;
      inner_->quantize(rowwise, columnwise, x, now);
    });
  }
  void adamw(const Tensor& w, const Tensor& master, const Tensor& m, const Tensor& v,
             const Tensor& grad, const Tensor& factor, const ops::AdamWParams& params) override {
    run("adamw", [=, this] {
      inner_->adamw(w, master, m, v, grad, factor, moment_ ? at(params, *moment_) : params);
    });
  }

 private:
  using Work = std::function<void()>;

  class Kept final : public ops::Recording {
   public:
    Kept(RecordingOps& ops, std::vector<Work> works)
        : ops_(ops), works_(std::move(works)), memory_version_(ops.memory_version_) {}
    bool valid() const override { return memory_version_ == ops_.memory_version_; }
    int64_t run(const ops::Moment& moment) override {
      ops::check(valid(), "a recording whose memory has moved");
      const int64_t first_mark = ops_.clock_.n_marks;
      ++ops_.n_runs;
      ops_.moment_ = moment;
      run_works();
      ops_.moment_.reset();
      return first_mark;
    }
    void run_works() const {
      for (const Work& work : works_) work();
    }

   private:
    RecordingOps& ops_;
    std::vector<Work> works_;
    int64_t memory_version_;
  };

  class Keeping final : public ops::Capture {
   public:
    explicit Keeping(RecordingOps& ops) : ops_(ops) {
      ops::check(ops.recorded_ == nullptr, "a recording in a recording");
      ops.recorded_ = this;
      ops.clock_.n_recorded = 0;
    }
    Keeping(const Keeping&) = delete;
    Keeping& operator=(const Keeping&) = delete;
    ~Keeping() override {
      if (ops_.recorded_ == this) ops_.recorded_ = nullptr;
    }
    std::unique_ptr<ops::Recording> end() override {
      run_kept();
      ops_.recorded_ = nullptr;
      if (works_.empty()) return nullptr;
      ++ops_.n_recordings;
      return std::make_unique<Kept>(ops_, std::move(works_));
    }

    void keep(Work work) { works_.push_back(std::move(work)); }
    // It was run just now.
    void keep_as_run(Work work) {
      run_kept();
      keep(std::move(work));
      ++n_run_;
    }
    void run_kept() {
      while (n_run_ < works_.size()) works_[n_run_++]();
      ops_.clock_.n_recorded = 0;
    }

   private:
    RecordingOps& ops_;
    std::vector<Work> works_;
    size_t n_run_ = 0;
  };

  void quantize_in_group(const ops::QuantizedTensor& rowwise,
                         const ops::QuantizedTensor& columnwise, const Tensor& x,
                         const ops::QuantCall& call) {
    recorded_->run_kept();  // what makes x
    const auto amaxes = std::make_shared<GroupAmaxes>();
    const auto piece = [=, this](size_t i) {
      return [=, this] {
        PieceOfQuantizer join(*amaxes, i);
        ops::QuantCall now = call;
        now.join = &join;
        if (moment_) now.random = at(call.random, *moment_);
        n_quantized += i == amaxes->size();
        inner_->quantize(rowwise, columnwise, x, now);
        device_.run(kCallNs);
      };
    };
    NotingAmaxes noting(*amaxes, *call.join, [&](size_t i) {
      device_.run(kCallNs);
      recorded_->keep_as_run(piece(i));
    });
    ops::QuantCall now = call;
    now.join = &noting;
    ++n_quantized;
    inner_->quantize(rowwise, columnwise, x, now);
    device_.run(kCallNs);
    recorded_->keep_as_run(piece(amaxes->size()));
  }

  struct Clock final : ops::DeviceClock {
    explicit Clock(RecordingOps& its_ops) : ops(its_ops) {}
    void start() override {
      n_marks = 0;
      ops.device_.start();
    }
    int64_t mark() override {
      if (ops.recorded_ == nullptr) return make();
      ops.recorded_->keep([this] { make(); });
      return n_marks + n_recorded++;
    }
    int64_t make() {
      ++n_marks;
      return ops.device_.mark();
    }
    void read(std::span<int64_t> times_ns) override { ops.device_.read(times_ns); }

    RecordingOps& ops;
    int64_t n_marks = 0, n_recorded = 0;  // made in this step; in what is being recorded
  };

  void run(std::string_view call, const std::function<void()>& f) override {
    const bool copies = call == "upload" || call.starts_with("download");
    const Work work = [this, f] {
      f();
      device_.run(kCallNs);
    };
    if (recorded_ == nullptr) {
      direct_calls.push_back(call);
      work();
      if (call.starts_with("download")) device_.wait();
      return;
    }
    ops::check(!copies, "a copy between host and device is recorded");
    recorded_->keep(work);
  }

  static constexpr int64_t kCallNs = 20'000;

  PacedDevice device_;
  Clock clock_{*this};
  Keeping* recorded_ = nullptr;        // while calls are recorded
  std::optional<ops::Moment> moment_;  // while a recording runs again
  int64_t memory_version_ = 0;
};

}  // namespace qstep::test
