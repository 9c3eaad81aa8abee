#include "parallel/wire.h"

#include <bit>
#include <cstring>

namespace qstep::parallel {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kHeadBytes = sizeof(uint32_t) + sizeof(uint8_t);

template <class T>
void append_value(std::string& bytes, const T& value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <class T>
T value_of(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

}  // namespace

std::string to_bytes(uint8_t kind, std::string_view body) {
  ops::check(body.size() <= kMaxBodyBytes, "side channel: a message is too long");
  std::string bytes;
  bytes.reserve(kHeadBytes + body.size());
  append_value(bytes, static_cast<uint32_t>(body.size()));
  append_value(bytes, kind);
  bytes.append(body);
  return bytes;
}

std::optional<Frame> FrameReader::next() {
  if (bytes_.size() < kHeadBytes) return std::nullopt;
  const size_t size = value_of<uint32_t>(bytes_);
  if (size > kMaxBodyBytes) throw WireError{};
  if (bytes_.size() < kHeadBytes + size) return std::nullopt;
  Frame frame{.kind = static_cast<uint8_t>(bytes_[sizeof(uint32_t)]),
              .body = bytes_.substr(kHeadBytes, size)};
  bytes_.erase(0, kHeadBytes + size);
  return frame;
}

Packer& Packer::number(int64_t value) {
  append_value(bytes_, value);
  return *this;
}

Packer& Packer::seconds(double value) {
  append_value(bytes_, value);
  return *this;
}

Packer& Packer::text(std::string_view value) {
  number(static_cast<int64_t>(value.size()));
  bytes_.append(value);
  return *this;
}

std::string_view Unpacker::take(size_t n) {
  if (n > rest_.size()) throw WireError{};
  const std::string_view taken = rest_.substr(0, n);
  rest_.remove_prefix(n);
  return taken;
}

int64_t Unpacker::number() { return value_of<int64_t>(take(sizeof(int64_t))); }

int64_t Unpacker::number_below(int64_t end) {
  const int64_t value = number();
  if (value < 0 || value >= end) throw WireError{};
  return value;
}

double Unpacker::seconds() { return value_of<double>(take(sizeof(double))); }

std::string Unpacker::text() { return std::string(take(static_cast<size_t>(number()))); }

}  // namespace qstep::parallel
