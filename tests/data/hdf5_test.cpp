#include "data/hdf5.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <thread>

#include "tests/data/test_files.h"

namespace qstep::data {
namespace {

TEST(Hdf5, AttributesRoundTrip) {
  const TempDir dir;
  Hdf5File file = Hdf5File::create(dir / "a.h5");
  file.create_group("/g");
  for (const std::string object : {"/", "/g"}) {
    file.write_attribute(object, "text", "snow ☃");
    file.write_attribute(object, "empty", "");
    file.write_attribute(object, "big", ~uint64_t{0});
    file.write_attribute(object, "negative", int64_t{-5});
    file.write_attribute(object, "real", 0.1);
  }
  file.close();
  const Hdf5File read = Hdf5File::open(dir / "a.h5");
  for (const std::string object : {"/", "/g"}) {
    EXPECT_EQ(read.read_string(object, "text"), "snow ☃");
    EXPECT_EQ(read.read_string(object, "empty"), "");
    EXPECT_EQ(read.read_u64(object, "big"), ~uint64_t{0});
    EXPECT_TRUE(read.has_attribute(object, "negative"));
  }
  EXPECT_TRUE(read.has_attribute("/g", "text"));
  EXPECT_FALSE(read.has_attribute("/g", "no"));
  EXPECT_FALSE(read.has_attribute("/no", "text"));
  EXPECT_ERROR(read.read_u64("/", "no"), "attribute no of / is missing");
  EXPECT_ERROR(read.read_u64("/", "text"), "expected an integer");
  EXPECT_ERROR(read.read_string("/", "big"), "expected a string");
  EXPECT_ERROR(read.read_u64("/", "real"), "expected an integer");
  EXPECT_ERROR(read.read_u64("/", "negative"), "does not fit an unsigned 64-bit integer");
}

template <class T>
void round_trip(Hdf5Type type, const Hdf5Layout& layout) {
  const TempDir dir;
  std::vector<T> values(1000), back(1000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(mix64(i));
  Hdf5File file = Hdf5File::create(dir / "a.h5");
  file.create_group("/g");
  file.write_dataset("/g/x", type, values.size(), values.data(), layout);
  file.write_dataset("/none", type, 0, values.data(), layout);
  file.close();
  const Hdf5File read = Hdf5File::open(dir / "a.h5");
  EXPECT_EQ(read.open_dataset("/g/x").type(), type);
  read.read_dataset("/g/x", type, back.size(), back.data());
  EXPECT_EQ(values, back);
  read.read_dataset("/none", type, 0, back.data());
  EXPECT_EQ(size_bytes(type), sizeof(T));
}

TEST(Hdf5, DatasetsOfEveryTypeAndLayoutRoundTrip) {
  for (const Hdf5Layout& layout :
       {Hdf5Layout{}, Hdf5Layout{.chunk_elements = 64},
        Hdf5Layout{.chunk_elements = 5000, .checksum = Checksum::kFletcher32}}) {
    round_trip<uint8_t>(Hdf5Type::kU8, layout);
    round_trip<uint16_t>(Hdf5Type::kU16, layout);
    round_trip<uint32_t>(Hdf5Type::kU32, layout);
    round_trip<uint64_t>(Hdf5Type::kU64, layout);
    round_trip<int32_t>(Hdf5Type::kI32, layout);
    round_trip<int64_t>(Hdf5Type::kI64, layout);
    round_trip<float>(Hdf5Type::kF32, layout);
    round_trip<double>(Hdf5Type::kF64, layout);
  }
}

// Floats must keep their bits, those of NaNs and signed zeros too: checkpoints rely on it.
TEST(Hdf5, FloatsKeepTheirBits) {
  const TempDir dir;
  const std::vector<uint32_t> bits = {0x80000000, 0x7f800001, 0xffc12345, 0x00000001, 0x7f7fffff};
  std::vector<uint32_t> back(bits.size());
  Hdf5File file = Hdf5File::create(dir / "a.h5");
  file.write_dataset("/x", Hdf5Type::kF32, bits.size(), bits.data());
  file.close();
  Hdf5File::open(dir / "a.h5").read_dataset("/x", Hdf5Type::kF32, back.size(), back.data());
  EXPECT_EQ(bits, back);
}

TEST(Hdf5, MismatchesAreNamed) {
  const TempDir dir;
  const std::vector<uint32_t> x(5);
  std::vector<uint32_t> out(10);
  Hdf5File file = Hdf5File::create(dir / "a.h5");
  file.write_dataset("/x", Hdf5Type::kU32, x.size(), x.data());
  file.close();
  const Hdf5File read = Hdf5File::open(dir / "a.h5");
  EXPECT_TRUE(read.exists("/"));
  EXPECT_TRUE(read.exists("/x"));
  EXPECT_FALSE(read.exists("/y"));
  EXPECT_FALSE(read.exists("/no/such/group"));
  EXPECT_ERROR(read.read_dataset("/y", Hdf5Type::kU32, 5, out.data()), "dataset /y is missing");
  EXPECT_ERROR(read.read_dataset("/x", Hdf5Type::kU32, 6, out.data()),
               "expected 6 elements of u32, found 5 of u32");
  EXPECT_ERROR(read.read_dataset("/x", Hdf5Type::kF32, 5, out.data()), "5 elements of f32");
  EXPECT_ERROR(read.open_dataset("/x").read(3, 3, out.data()), "elements 3 to 6 asked for");
}

// R16: another process holds the file exclusively; the message must say what to do.
TEST(Hdf5, R16_ALockedFileIsExplained) {
  const TempDir dir;
  Hdf5File::create(dir / "a.h5").close();
  const int descriptor = ::open((dir / "a.h5").c_str(), O_RDWR);
  ASSERT_GE(descriptor, 0);
  ASSERT_EQ(::flock(descriptor, LOCK_EX), 0);
  EXPECT_ERROR(Hdf5File::open(dir / "a.h5"), "HDF5_USE_FILE_LOCKING=FALSE");
  ::close(descriptor);
  Hdf5File::open(dir / "a.h5");
}

TEST(Hdf5, R16_ManyReadersOfAReadOnlyFile) {
  const TempDir dir;
  const std::vector<uint32_t> x = {1, 2, 3};
  Hdf5File file = Hdf5File::create(dir / "a.h5");
  file.write_dataset("/x", Hdf5Type::kU32, x.size(), x.data());
  file.close();
  ASSERT_EQ(::chmod((dir / "a.h5").c_str(), 0444), 0);
  std::vector<std::thread> readers;
  std::atomic<int> right = 0;
  for (int i = 0; i < 64; ++i) {
    readers.emplace_back([&] {
      std::vector<uint32_t> out(3);
      Hdf5File::open(dir / "a.h5").read_dataset("/x", Hdf5Type::kU32, 3, out.data());
      right += out == x;
    });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(right, 64);
}

TEST(Hdf5, ErrorsOnOtherThreadsPrintNothing) {
  testing::internal::CaptureStderr();
  std::thread([] {
    const TempDir dir;
    write_file(dir / "a.h5", "not HDF5");
    EXPECT_THROW(Hdf5File::open(dir / "a.h5"), Error);
  }).join();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace qstep::data
