#include "data/npy.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

// A file as numpy.save lays it out: the header padded with spaces so that the elements begin at a
// multiple of 64.
std::string npy(const std::string& dict, const std::string& elements, int version = 1) {
  std::string header = dict;
  const size_t fixed = version == 1 ? 10 : 12;
  header.append(63 - (fixed + header.size()) % 64, ' ');
  header += '\n';
  std::string file = "\x93NUMPY";
  file += static_cast<char>(version);
  file += '\0';
  for (size_t i = 0; i < fixed - 8; ++i) file += static_cast<char>(header.size() >> (8 * i));
  return file + header + elements;
}

std::string dict(const std::string& descr, const std::string& shape,
                 const std::string& order = "False") {
  return fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}", descr, order, shape);
}

template <class T, size_t n>
std::string bytes_of(const std::array<T, n>& values) {
  return {reinterpret_cast<const char*>(values.data()), sizeof values};
}

constexpr std::array<float, 6> kSix{1.0f, -0.0f, 0.1f, 1e-40f, 3e38f, -7.5f};

class Npy : public testing::Test {
 protected:
  std::string file(const std::string& content) {
    write_file(dir_ / "x.npy", content);
    return dir_ / "x.npy";
  }
  // The text of the error that opening such a file throws; it names the file.
  std::string refusal(const std::string& content) {
    const std::string path = file(content);
    std::string text = error_of([&] { NpyFile{path}; });
    EXPECT_TRUE(text.starts_with(path + ": ")) << text;
    return text;
  }
  void expect_six(const std::string& content, uint64_t rows, uint64_t cols) {
    NpyFile npy(file(content));
    EXPECT_EQ(npy.type(), NpyType::kF32);
    EXPECT_EQ(npy.rows(), rows);
    EXPECT_EQ(npy.cols(), cols);
    std::array<float, 6> all{};
    npy.read(0, 6, all.data());
    EXPECT_EQ(std::memcmp(all.data(), kSix.data(), sizeof kSix), 0);
  }

  TempDir dir_;
};

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << '"' << part << "\" not in: " << text;
}

TEST_F(Npy, MatricesAndVectorsOfEveryVersion) {
  for (const int version : {1, 2, 3}) {
    expect_six(npy(dict("<f4", "(2, 3)"), bytes_of(kSix), version), 2, 3);
  }
  expect_six(npy(dict("<f4", "(6,)"), bytes_of(kSix)), 1, 6);
  expect_six(npy(dict("<f4", "(6, 1)"), bytes_of(kSix)), 6, 1);
  // Where the order does not matter, either word does.
  expect_six(npy(dict("<f4", "(6, 1)", "True"), bytes_of(kSix)), 6, 1);
  expect_six(npy(dict("<f4", "(6,)", "True"), bytes_of(kSix)), 1, 6);
}

TEST_F(Npy, HeadersThatOtherProgramsWrite) {
  const std::string elements = bytes_of(kSix);
  expect_six(npy(R"({"shape": (2, 3), "fortran_order": False, "descr": "<f4"})", elements), 2, 3);
  expect_six(npy("{'descr':'<f4','fortran_order':False,'shape':(2,3)}", elements), 2, 3);
  expect_six(npy(dict("<f4", "(2L, 3L)"), elements), 2, 3);
  expect_six(
      npy("\n { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 2 , 3 ) }", elements), 2,
      3);
}

TEST_F(Npy, SixteenBitWords) {
  constexpr std::array<uint16_t, 3> kWords{0x3F80, 0xC000, 0x7FC0};
  for (const char* descr : {"<u2", "|V2", "<V2"}) {
    NpyFile npy_file(file(npy(dict(descr, "(3,)"), bytes_of(kWords))));
    EXPECT_EQ(npy_file.type(), NpyType::kBits16);
    EXPECT_EQ(npy_file.element_bytes(), 2u);
    std::array<uint16_t, 2> last{};
    npy_file.read(1, 2, last.data());
    EXPECT_EQ(last, (std::array<uint16_t, 2>{0xC000, 0x7FC0}));
  }
}

TEST_F(Npy, PartsAndEmptyOnes) {
  NpyFile six(file(npy(dict("<f4", "(2, 3)"), bytes_of(kSix))));
  float value = 0;
  six.read(5, 1, &value);
  EXPECT_EQ(value, -7.5f);
  six.read(6, 0, nullptr);
  error_of([&] { six.read(5, 2, &value); });
  error_of([&] { six.read(7, 0, &value); });

  const NpyFile empty(file(npy(dict("<f4", "(0, 3)"), "")));
  EXPECT_EQ(empty.rows(), 0u);
  EXPECT_EQ(empty.cols(), 3u);
}

// A header that says 5e9 elements before a hole of 20 GB, as sparse as the file system has it.
TEST_F(Npy, MoreElementsThan32BitsCount) {
  const std::string path = file(npy(dict("<f4", "(50000, 100000)"), ""));
  const auto header_bytes = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, header_bytes + 20'000'000'000u);
  NpyFile npy_file(path);
  EXPECT_EQ(npy_file.rows() * npy_file.cols(), 5'000'000'000u);
  float value = 1;
  npy_file.read(4'999'999'999u, 1, &value);
  EXPECT_EQ(value, 0.0f);
}

TEST_F(Npy, OtherTypesAreRefusedWithWhatToDo) {
  const auto of_type = [&](const char* descr) {
    return refusal(npy(dict(descr, "(1,)"), "12345678"));
  };
  expect_contains(of_type("<f8"), "found '<f8', float64: save x.astype(numpy.float32)");
  expect_contains(of_type("<f2"), "float16: save x.astype(numpy.float32)");
  expect_contains(of_type(">f4"), "big-endian float32");
  expect_contains(of_type(">u2"), "big-endian uint16");
  expect_contains(of_type("|O"), "Python objects");
  expect_contains(of_type("<i4"), "found '<i4'");
  expect_contains(
      refusal(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "1234")),
      "structured type");
}

TEST_F(Npy, OtherShapesAreRefused) {
  expect_contains(refusal(npy(dict("<f4", "(1, 2, 3)"), bytes_of(kSix))),
                  "expected 1 or 2 dimensions, found 3 (1 x 2 x 3)");
  expect_contains(refusal(npy(dict("<f4", "()"), "1234")), "found 0");
  expect_contains(refusal(npy(dict("<f4", "(2, 3)", "True"), bytes_of(kSix))), "Fortran order");
}

TEST_F(Npy, SizesThatDoNotFitTheFile) {
  const std::string six = bytes_of(kSix);
  expect_contains(refusal(npy(dict("<f4", "(2, 3)"), six.substr(1))),
                  "expected 2 x 3 elements of 4 bytes behind the header, found 23 bytes: the file "
                  "is cut off");
  expect_contains(refusal(npy(dict("<f4", "(2, 3)"), six + "x")), "longer than its header says");
  expect_contains(refusal(npy(dict("<f4", "(2, 3)"), "")), "cut off");
  // Products that do not fit 64 bits.
  expect_contains(refusal(npy(dict("<f4", "(4294967296, 4294967296)"), "")), "cut off");
  expect_contains(refusal(npy(dict("<f4", "(4611686018427387904, 1)"), "")), "cut off");
  expect_contains(refusal(npy(dict("<f4", "(99999999999999999999,)"), "")), "a larger one");
}

TEST_F(Npy, FilesThatAreSomethingElse) {
  const std::string good = npy(dict("<f4", "(2, 3)"), bytes_of(kSix));
  expect_contains(refusal(""), "an empty file");
  expect_contains(refusal("PK\x03\x04 a zip"), ".npz");
  expect_contains(refusal("\x89HDF\r\n"), "an HDF5 file");
  expect_contains(refusal("1.0,2.0\n"), "another format");
  expect_contains(refusal("\x93NUM"), "another format");
  expect_contains(refusal(good.substr(0, 7)), "ends inside its version");
  expect_contains(refusal(good.substr(0, 9)), "ends inside the length of its header");
  expect_contains(refusal(good.substr(0, 60)), "ends inside its header");
  expect_contains(refusal(npy(dict("<f4", "(2, 3)"), bytes_of(kSix), 4)), "found 4.0");
  EXPECT_ERROR(NpyFile(dir_ / "missing.npy"), "cannot open: No such file");
  EXPECT_ERROR(NpyFile(dir_.str()), "not a file");
}

// Every way in which the text can stop being the dict names the byte.
TEST_F(Npy, MalformedHeaders) {
  struct Case {
    const char *header, *expected;
  };
  constexpr Case kCases[] = {
      {"", "byte 0 of the header: expected '{', found the end"},
      {"[]", "byte 0 of the header: expected '{', found '['"},
      {"{'descr': '<f4'}", "expected the key fortran_order"},
      {"{'descr': '<f4', 'fortran_order': False}", "expected the key shape"},
      {"{'fortran_order': False, 'shape': (1,)}", "expected the key descr"},
      {"{'descr': '<f4', 'descr': '<f4'}", "expected each key once"},
      {"{'descr': '<f4', 'other': 1}", "found \"other\""},
      {"{descr: '<f4'}", "byte 1 of the header: expected a key in quotes, found 'd'"},
      {"{'descr' '<f4'}", "byte 9 of the header: expected ':'"},
      {"{'descr': <f4}", "expected a type in quotes"},
      {"{'descr': '<f4}", "expected a closing quote"},
      {"{'descr': '<f4' 'shape': (1,)}", "expected ',' or '}'"},
      {"{'fortran_order': 0}", "expected True or False, found '0'"},
      {"{'shape': 3}", "expected '('"},
      {"{'shape': (-3,)}", "expected a size, found '-'"},
      {"{'shape': (3.0,)}", "expected ',' or ')'"},
      {"{'shape': (3,", "expected a size, found the end"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", "expected nothing behind '}'"},
      {"{'descr': '<f4', \x01", "found byte 0x01"},
  };
  for (const Case& c : kCases) {
    const std::string text = error_of([&] { parse_npy_header(c.header, "x.npy"); });
    EXPECT_TRUE(text.starts_with("x.npy: byte ")) << text;
    expect_contains(text, c.expected);
  }
}

// Whatever byte of a file is changed, or wherever it is cut: an Error or a file that reads.
TEST_F(Npy, DamageNeverEndsOtherwise) {
  const std::string good = npy(dict("<f4", "(2, 3)"), bytes_of(kSix));
  const auto open = [&](const std::string& content) {
    try {
      NpyFile npy_file(file(content));
      std::vector<char> all(npy_file.rows() * npy_file.cols() * npy_file.element_bytes());
      npy_file.read(0, npy_file.rows() * npy_file.cols(), all.data());
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::kData);
    }
  };
  for (size_t i = 0; i < good.size(); ++i) {
    open(good.substr(0, i));
    for (const int change : {1, 0x80}) {
      std::string damaged = good;
      damaged[i] = static_cast<char>(damaged[i] ^ change);
      open(damaged);
    }
  }
}

}  // namespace
}  // namespace qstep::data
