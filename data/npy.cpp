#include "data/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/error.h"

namespace qstep::data {

static_assert(std::endian::native == std::endian::little, "elements are read as they lie");

namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr uint64_t kLargestHeader = 1 << 20;  // a matrix's has about a hundred bytes

struct Refusal {
  std::string_view descr, what;
};
// Types that people are likely to have, and what to do about each.
constexpr std::array kRefused{
    Refusal{"f8", "float64: save x.astype(numpy.float32)"},
    Refusal{"f2", "float16: save x.astype(numpy.float32), which keeps every value"},
    Refusal{"f4", "a big-endian float32: save x.astype('<f4')"},
    Refusal{"u2", "a big-endian uint16: save x.astype('<u2')"},
    Refusal{"O", "Python objects: save an array of numbers"},
};

}  // namespace

NpyFile::NpyFile(const std::string& path) : path_(path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw Error(
        fmt::format("{}: cannot open: {}", path, error ? error.message() : std::strerror(ENOENT)));
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw Error(fmt::format("{}: expected a .npy file, found something that is not a file", path));
  }
  file_.open(path, std::ios::binary);
  if (!file_) throw Error(fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  read_header(std::filesystem::file_size(path));
}

std::string NpyFile::read_bytes(uint64_t n, const char* what) {
  std::string bytes(n, '\0');
  file_.read(bytes.data(), static_cast<std::streamsize>(n));
  const auto got = static_cast<uint64_t>(file_.gcount());
  if (got != n) {
    throw Error(fmt::format("{}: the file ends inside {}: expected {} bytes, found {}", path_, what,
                            n, got));
  }
  return bytes;
}

void NpyFile::read_header(uint64_t file_bytes) {
  const std::string begin = read_bytes(std::min<uint64_t>(file_bytes, kMagic.size()), "itself");
  if (begin != kMagic) {
    throw Error(fmt::format("{}: expected a .npy file (numpy.save writes one), found {}", path_,
                            file_bytes == 0                ? "an empty file"
                            : begin.starts_with("PK")      ? "a zip file: .npz holds several; save "
                                                             "one array with numpy.save"
                            : begin.starts_with("\x89HDF") ? "an HDF5 file"
                                                           : "another format"));
  }
  const std::string version = read_bytes(2, "its version");
  const auto major = static_cast<unsigned char>(version[0]);
  const auto minor = static_cast<unsigned char>(version[1]);
  if (major < 1 || major > 3 || minor != 0) {
    throw Error(fmt::format("{}: expected version 1.0, 2.0 or 3.0 of the format, found {}.{}",
                            path_, major, minor));
  }
  const std::string length = read_bytes(major == 1 ? 2 : 4, "the length of its header");
  uint64_t header_bytes = 0;
  for (size_t i = length.size(); i-- > 0;) {
    header_bytes = header_bytes << 8 | static_cast<unsigned char>(length[i]);
  }
  data_offset_ = kMagic.size() + version.size() + length.size() + header_bytes;
  if (header_bytes > kLargestHeader) {
    throw Error(fmt::format("{}: expected a header of at most {} bytes, found {}", path_,
                            kLargestHeader, header_bytes));
  }
  const NpyHeader header = parse_npy_header(read_bytes(header_bytes, "its header"), path_);
  set_type(header.descr);
  set_shape(header);

  uint64_t elements = 0, bytes = 0;
  const uint64_t found = file_bytes - data_offset_;
  const bool countable = !__builtin_mul_overflow(rows_, cols_, &elements) &&
                         !__builtin_mul_overflow(elements, element_bytes(), &bytes);
  if (countable && bytes == found) return;
  throw Error(
      fmt::format("{}: expected {} x {} elements of {} bytes behind the header, found {} bytes: "
                  "the file is {}",
                  path_, rows_, cols_, element_bytes(), found,
                  countable && bytes < found ? "longer than its header says" : "cut off"));
}

void NpyFile::set_type(const std::string& descr) {
  if (descr == "<f4") {
    type_ = NpyType::kF32;
  } else if (descr == "<u2" || descr == "|V2" || descr == "<V2") {
    type_ = NpyType::kBits16;
  } else {
    std::string found = fmt::format("'{}'", descr);
    for (const Refusal& refusal : kRefused) {
      if (descr.ends_with(refusal.descr)) found += fmt::format(", {}", refusal.what);
    }
    throw Error(fmt::format(
        "{}: expected elements of type '<f4' (float32) or '<u2' (the bits of bfloat16), found {}",
        path_, found));
  }
}

void NpyFile::set_shape(const NpyHeader& header) {
  const std::vector<uint64_t>& shape = header.shape;
  if (shape.empty() || shape.size() > 2) {
    throw Error(fmt::format("{}: expected 1 or 2 dimensions, found {} ({}): save {}", path_,
                            shape.size(), fmt::join(shape, " x "),
                            shape.empty() ? "x.reshape(1, 1)" : "x.reshape(-1, x.shape[-1])"));
  }
  rows_ = shape.size() == 1 ? 1 : shape[0];
  cols_ = shape.back();
  if (header.fortran_order && rows_ > 1 && cols_ > 1) {
    throw Error(
        fmt::format("{}: expected elements row by row, found Fortran order: save "
                    "numpy.ascontiguousarray(x)",
                    path_));
  }
}

void NpyFile::read(uint64_t first, uint64_t n, void* out) {
  if (first > rows_ * cols_ || n > rows_ * cols_ - first) {
    throw Error(fmt::format("{}: elements {} to {} asked for, but it has {}", path_, first,
                            first + n, rows_ * cols_));
  }
  const uint64_t bytes = n * element_bytes();
  file_.clear();
  file_.seekg(static_cast<std::streamoff>(data_offset_ + first * element_bytes()));
  file_.read(static_cast<char*>(out), static_cast<std::streamsize>(bytes));
  if (static_cast<uint64_t>(file_.gcount()) != bytes) {
    throw Error(fmt::format("{}: cannot read elements {} to {}", path_, first, first + n));
  }
}

}  // namespace qstep::data
