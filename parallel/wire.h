// Bytes of the side channel: frames of a length, a kind and a body, and bodies of numbers and
// texts. Little-endian, as every machine that this runs on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ops/error.h"

namespace qstep::parallel {

// What arrived is none of ours.
class WireError : public ops::Error {
 public:
  WireError() : Error(ops::ExitCode::kInternal, "side channel: a message that nobody sends") {}
};

struct Frame {
  uint8_t kind = 0;
  std::string body;
};

inline constexpr size_t kMaxBodyBytes = size_t{1} << 20;

// uint32 bytes of the body, uint8 kind, body. Throws Error (internal) above kMaxBodyBytes.
std::string to_bytes(uint8_t kind, std::string_view body);

// Frames from a stream of bytes that arrive in pieces.
class FrameReader {
 public:
  void append(std::string_view bytes) { bytes_.append(bytes); }
  // Throws WireError when the length is impossible.
  std::optional<Frame> next();

 private:
  std::string bytes_;
};

// Bodies: fields one after the other.
class Packer {
 public:
  Packer& number(int64_t value);
  Packer& seconds(double value);
  Packer& text(std::string_view value);
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads what a Packer of the same calls wrote; throws WireError where that is not so.
class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : rest_(bytes) {}
  int64_t number();
  // A number in [0, end).
  int64_t number_below(int64_t end);
  double seconds();
  std::string text();

 private:
  std::string_view take(size_t n);

  std::string_view rest_;
};

}  // namespace qstep::parallel
