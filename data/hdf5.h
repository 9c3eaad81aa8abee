// HDF5 with owners instead of raw identifiers and data::Error instead of error stacks.
// Rule: every call of the library happens under an Hdf5Lock, because it may not be thread-safe.
// All functions declared here take the lock themselves; it is recursive, so a caller may hold it
// too.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "data/error.h"

namespace qstep::data {

// Guard of the one process-wide (recursive) mutex in front of the library. Also turns off the
// library's own printing of error stacks for the calling thread.
class Hdf5Lock {
 public:
  Hdf5Lock();
  ~Hdf5Lock();
  Hdf5Lock(const Hdf5Lock&) = delete;
  Hdf5Lock& operator=(const Hdf5Lock&) = delete;
};

// Element types of datasets; in the file always little-endian.
enum class Hdf5Type { kU8, kU16, kU32, kU64, kI32, kI64, kF32, kF64 };
uint64_t size_bytes(Hdf5Type type);
std::string_view type_name(Hdf5Type type);  // "u8", ..., "f64"

enum class Checksum { kNo, kFletcher32 };

// How a dataset is laid out. Fletcher32 and growth both need chunks.
struct Hdf5Layout {
  uint64_t chunk_elements = 0;  // 0: contiguous
  Checksum checksum = Checksum::kNo;
  uint64_t cache_bytes = 0;  // chunk cache of the dataset; 0: the library's default
};

// Owns one identifier. The destructor closes and swallows errors; close() reports them.
class Hdf5Handle {
 public:
  Hdf5Handle() = default;
  Hdf5Handle(int64_t id, int (*close_function)(int64_t)) : id_(id), close_(close_function) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept;
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;
  ~Hdf5Handle();

  int64_t id() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  bool close() noexcept;  // false when the library reports an error; empty afterwards

 private:
  int64_t id_ = -1;
  int (*close_)(int64_t) = nullptr;
};

// A one-dimensional dataset. Errors name the file, the dataset and the first element concerned.
class Hdf5Dataset {
 public:
  Hdf5Type type() const { return type_; }
  uint64_t size() const { return size_; }  // elements
  const std::string& where() const { return where_; }

  // Elements [first, first + n) to or from memory of the native type; the range must exist.
  void read(uint64_t first, uint64_t n, void* out) const;
  void write(uint64_t first, uint64_t n, const void* data);
  // Grows the dataset (which must be chunked and created with create_growing_dataset) and writes.
  void append(uint64_t n, const void* data);
  void close();
  // Where a contiguous dataset that has been written lies in the file, in bytes.
  uint64_t file_offset() const;

 private:
  friend class Hdf5File;
  Hdf5Handle handle_;
  Hdf5Type type_ = Hdf5Type::kU8;
  uint64_t size_ = 0;
  std::string where_;  // "corpus.h5: dataset /tokens"
};

// A file. Objects and attributes are named by absolute paths ("/", "/validation/tokens").
class Hdf5File {
 public:
  // Creates or truncates. Throws kDisk where the place cannot be written.
  static Hdf5File create(const std::string& path);
  // Opens for reading only. Explains missing, empty, foreign, truncated and locked files.
  static Hdf5File open(const std::string& path);

  const std::string& path() const { return path_; }
  bool exists(const std::string& object) const;
  bool has_attribute(const std::string& object, const std::string& name) const;

  void create_group(const std::string& object);
  Hdf5Dataset create_dataset(const std::string& object, Hdf5Type type, uint64_t elements,
                             const Hdf5Layout& layout = {});
  Hdf5Dataset create_growing_dataset(const std::string& object, Hdf5Type type,
                                     const Hdf5Layout& layout);
  // cache_bytes as in Hdf5Layout. Refuses other ranks than 1 and other types than Hdf5Type's.
  Hdf5Dataset open_dataset(const std::string& object, uint64_t cache_bytes = 0) const;

  // Create and write, or open, check the length and read, in one call.
  void write_dataset(const std::string& object, Hdf5Type type, uint64_t elements, const void* data,
                     const Hdf5Layout& layout = {});
  void read_dataset(const std::string& object, Hdf5Type type, uint64_t elements, void* out) const;

  // Scalar attributes of "/" , a group or a dataset. Strings are UTF-8 of fixed length when
  // written; both fixed and variable length are read. Integers of any width and
  // sign are read as u64 when the value fits.
  void write_attribute(const std::string& object, const std::string& name, std::string_view value);
  void write_attribute(const std::string& object, const std::string& name, uint64_t value);
  void write_attribute(const std::string& object, const std::string& name, int64_t value);
  void write_attribute(const std::string& object, const std::string& name, double value);
  std::string read_string(const std::string& object, const std::string& name) const;
  uint64_t read_u64(const std::string& object, const std::string& name) const;

  // Writes everything and closes; every dataset must be closed before. Throws on error.
  void close();

 private:
  Hdf5Dataset create(const std::string& object, Hdf5Type type, uint64_t elements,
                     uint64_t max_elements, const Hdf5Layout& layout);
  Hdf5Handle open_attribute(const std::string& object, const std::string& name) const;
  void write_scalar(const std::string& object, const std::string& name, int64_t file_type,
                    int64_t memory_type, const void* value);

  Hdf5Handle handle_;
  std::string path_;
};

}  // namespace qstep::data
