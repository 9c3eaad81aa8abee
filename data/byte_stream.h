// A file as a stream of bytes, decompressed on the way when its name ends in .gz or .zst.
// Constant memory, whatever the size of the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace qstep::data {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Up to n > 0 bytes into out; 0 only at the end. Throws Error on damage (checksums included) and
  // where the file cannot be read.
  virtual size_t read(char* out, size_t n) = 0;
  virtual uint64_t file_bytes_done() const = 0;  // of the file as it is on disk
};

std::unique_ptr<ByteStream> open_byte_stream(const std::string& path);

}  // namespace qstep::data
