// Parts of a step that the device gets as they were recorded (ops/recorder.h), their places in the
// timeline with them. Where ranks exchange something in the middle of a part, the recording ends
// ahead of that, and the next begins behind it: a part is recordings with calls of the host between
// them.
#pragma once

#include <compare>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "ops/recorder.h"
#include "trainer/timing/timeline_tape.h"

namespace qstep::trainer {

// Which part of a step; what is equal for two parts that make the same calls.
struct RecordingKey {
  enum class Part : uint8_t { kMicroBatch, kUpdate };
  Part part = Part::kMicroBatch;
  size_t phase = 0;           // of the recipe
  bool first = false;         // micro-batch of a step: it quantizes the weights
  bool sends = false;         // gradients, to other ranks
  int64_t gradient_path = 0;  // GradientSum::path

  friend auto operator<=>(const RecordingKey&, const RecordingKey&) = default;
};

class Recordings {
 public:
  // Both outlive this. enabled false: nothing is recorded, nor where `ops` records nothing.
  Recordings(ops::Ops& ops, Timeline& timeline, bool enabled)
      : ops_(ops), timeline_(timeline), enabled_(enabled) {}

  // The calls of f, which differ from those of an earlier run with this key in their moment alone.
  // The first run calls f: memory is taken, kernels are chosen. The second records what f hands
  // over; later ones do without f. f neither waits nor moves bytes between host and device, but in
  // unrecorded().
  template <class F>
  void run(const RecordingKey& key, const ops::Moment& moment, F&& f) {
    ops::Recorder* const recorder = enabled_ ? ops_.recorder() : nullptr;
    if (recorder == nullptr) return f();
    const auto [found, is_new] = parts_.try_emplace(key);
    if (is_new) return f();
    Part& part = found->second;
    if (valid(part)) return run_again(part, moment);
    part.clear();
    Making making(*this, *recorder, part);
    f();
    making.finish();
  }

  // Within run() or outside of it: the host makes the calls of f itself, here and in the same place
  // whenever the part runs again; f then finds what it refers to as it was.
  template <class F>
  void unrecorded(F f) {
    if (making_ == nullptr) return f();
    making_->end_stretch();
    f();
    making_->add(std::move(f));
    making_->begin_stretch();
  }

 private:
  // Calls that were recorded, up to the first that were not, and these.
  struct Stretch {
    std::unique_ptr<ops::Recording> recording;  // null: nothing but notes in the timeline
    TimelineTape tape;
    std::function<void()> unrecorded;  // null in the last one
  };
  using Part = std::vector<Stretch>;

  // A part while it is recorded; left by an exception it has no stretches.
  class Making {
   public:
    Making(Recordings& recordings, ops::Recorder& recorder, Part& part);
    ~Making();
    Making(const Making&) = delete;
    Making& operator=(const Making&) = delete;

    void begin_stretch();
    void end_stretch();
    void add(std::function<void()> unrecorded) {
      stretches_.back().unrecorded = std::move(unrecorded);
    }
    void finish();

   private:
    Recordings& recordings_;
    ops::Recorder& recorder_;
    Part& part_;
    Part stretches_;
    std::unique_ptr<TimelineTape> tape_;  // of the one that is recorded
    std::unique_ptr<ops::Capture> capture_;
  };

  static bool valid(const Part& part);
  void run_again(const Part& part, const ops::Moment& moment);

  ops::Ops& ops_;
  Timeline& timeline_;
  bool enabled_;
  std::map<RecordingKey, Part> parts_;
  Making* making_ = nullptr;
};

}  // namespace qstep::trainer
