// NumPy's .npy files, versions 1.0 to 3.0 (numpy.lib.format): a magic number, the header as the
// text of a Python dict, the elements. Reads matrices of 32-bit floats and of 16-bit words.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace qstep::data {

struct NpyHeader {
  std::string descr;  // "<f4"
  bool fortran_order = false;
  std::vector<uint64_t> shape;
};

// The dict, e.g. "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }\n". Error (data) that
// begins with `where` and names the byte at which it ends to be one.
NpyHeader parse_npy_header(std::string_view text, const std::string& where);

enum class NpyType {
  kF32,     // '<f4'
  kBits16,  // '<u2', or '|V2', which is how ml_dtypes' bfloat16 is saved
};

// An open file. Errors (data) name the file, what was expected and what was found.
class NpyFile {
 public:
  explicit NpyFile(const std::string& path);

  const std::string& path() const { return path_; }
  NpyType type() const { return type_; }
  // A vector is one row.
  uint64_t rows() const { return rows_; }
  uint64_t cols() const { return cols_; }
  uint64_t element_bytes() const { return type_ == NpyType::kF32 ? 4 : 2; }

  // Elements [first, first + n) in row-major order.
  void read(uint64_t first, uint64_t n, void* out);

 private:
  void read_header(uint64_t file_bytes);
  void set_type(const std::string& descr);
  void set_shape(const NpyHeader& header);
  std::string read_bytes(uint64_t n, const char* what);

  std::string path_;
  std::ifstream file_;
  NpyType type_ = NpyType::kF32;
  uint64_t rows_ = 0, cols_ = 0;
  uint64_t data_offset_ = 0;
};

}  // namespace qstep::data
