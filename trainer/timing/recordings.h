// Parts of a step that the device gets as they were recorded (ops/recorder.h), their places in the
// timeline with them.
#pragma once

#include <compare>
#include <functional>
#include <map>
#include <memory>

#include "ops/recorder.h"
#include "trainer/timing/timeline_tape.h"

namespace qstep::trainer {

// Which part of a step; what is equal for two parts that make the same calls.
struct RecordingKey {
  enum class Part : uint8_t { kMicroBatch, kUpdate };
  Part part = Part::kMicroBatch;
  size_t phase = 0;           // of the recipe
  bool first = false;         // micro-batch of a step: it quantizes the weights
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
  // over; later ones do without f. f neither waits nor moves bytes between host and device.
  template <class F>
  void run(const RecordingKey& key, const ops::Moment& moment, F&& f) {
    ops::Recorder* const recorder = enabled_ ? ops_.recorder() : nullptr;
    if (recorder == nullptr) return f();
    const auto [found, is_new] = parts_.try_emplace(key);
    if (is_new) return f();
    Part& part = found->second;
    if (part.recording && part.recording->valid()) return run_again(part, moment);
    part = {};
    timeline_.record(&part.tape);
    part.recording = recorder->record(std::ref(f));
    timeline_.record(nullptr);
  }

 private:
  struct Part {
    std::unique_ptr<ops::Recording> recording;
    TimelineTape tape;
  };
  void run_again(Part& part, const ops::Moment& moment);

  ops::Ops& ops_;
  Timeline& timeline_;
  bool enabled_;
  std::map<RecordingKey, Part> parts_;
};

}  // namespace qstep::trainer
