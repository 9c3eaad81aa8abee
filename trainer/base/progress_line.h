// How far a long command is, on stderr: one line that is redrawn on a terminal; elsewhere a line
// every few seconds.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace qstep::trainer {

// What a stop signal makes of a command between two pieces of data.
struct Interrupted {};

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { end(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Ends the line before and starts the clock of this one.
  void begin(std::string what);

  // `done` of `total` bytes. Throws Interrupted after the first stop signal.
  void update(uint64_t done, uint64_t total);

  // Wipes the line off a terminal.
  void end();

 private:
  using Clock = std::chrono::steady_clock;

  void print(uint64_t done, uint64_t total, double elapsed_s);

  const bool terminal_;
  std::string what_;
  Clock::time_point start_ = Clock::now(), last_ = Clock::now();
  bool drawn_ = false;
};

}  // namespace qstep::trainer
