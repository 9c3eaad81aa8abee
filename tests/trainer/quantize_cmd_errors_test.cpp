// `qstep quantize`: what it refuses, and what stays as it was then.
#include <signal.h>
#include <sys/resource.h>

#include "ops/error.h"
#include "tests/trainer/quantize_cmd_testing.h"

namespace qstep::trainer {
namespace {

// The text of the Error with this code.
std::string refusal(const Words& words, ops::ExitCode code) {
  try {
    run(words);
  } catch (const ops::Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "not refused";
  return {};
}

TEST_F(QuantizeCommand, MistakesInTheQuantizerAreToldTogether) {
  write_source(16, 16);
  Words words{"--input", dir_ / "x.npy", "-o", dir_ / "q.h5"};
  const auto with = [&](const Words& more) {
    Words all = words;
    all.insert(all.end(), more.begin(), more.end());
    return refusal(all, ops::ExitCode::kConfig);
  };
  EXPECT_NE(with({}).find("write a --format"), std::string::npos);
  const std::string both =
      with({"--format", "mxfp8-e4m3", "--rounding", "stochastic", "--hadamard", "7"});
  EXPECT_NE(both.find("is not rounded stochastically"), std::string::npos) << both;
  EXPECT_NE(both.find("hadamard = 7"), std::string::npos) << both;
  EXPECT_NE(with({"--recipe", "bf16", "--operand", "x_fprop"}).find("nothing to quantize"),
            std::string::npos);
  EXPECT_NE(with({"--recipe", "nvfp4", "--operand", "x_fprop", "--block", "1x16"})
                .find("block = 1x16 with --recipe"),
            std::string::npos);
  EXPECT_NE(with({"--recipe", "nvfp5", "--operand", "x_fprop"}).find("nvfp4"), std::string::npos);
  EXPECT_NE(with({"--format", "nvfp4", "--hadamard", "0x10"}).find("hadamard = 0x10"),
            std::string::npos);
  EXPECT_NE(with({"--format", "nvfp4", "--delayed-scale", "2"}).find("add --amax delayed"),
            std::string::npos);
  EXPECT_NE(with({"--recipe", "nvfp4", "--operand", "x_fprop", "--delayed-scale", "2"})
                .find("leave --delayed-scale out"),
            std::string::npos);
  words.push_back("--format");
  words.push_back("nvfp5");
  EXPECT_THROW(run(words), CLI::ParseError);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "q.h5"));
}

TEST_F(QuantizeCommand, TheInputIsNeverReplaced) {
  write_source(16, 32);
  const std::string before = data::read_file(dir_ / "x.npy");
  for (const std::string& output : {dir_ / "x.npy", dir_ / "./x.npy"}) {
    EXPECT_NE(refusal({"--format", "nvfp4", "--input", dir_ / "x.npy", "-o", output},
                      ops::ExitCode::kConfig)
                  .find("is the file of --input"),
              std::string::npos);
  }
  EXPECT_EQ(data::read_file(dir_ / "x.npy"), before);
}

TEST_F(QuantizeCommand, UnfitInputs) {
  const Words words{"--format", "nvfp4", "--input", dir_ / "x.npy", "-o", dir_ / "q.h5"};
  const auto with = [&](const Words& more) {
    Words all = words;
    all.insert(all.end(), more.begin(), more.end());
    return refusal(all, ops::ExitCode::kData);
  };
  write_npy(dir_ / "x.npy", {}, 0, 5, Dtype::kF32);
  EXPECT_NE(with({}).find("expected elements, found [0, 5]"), std::string::npos);
  write_source(24, 40, Dtype::kBf16);
  EXPECT_NE(with({}).find("add --bf16"), std::string::npos);
  EXPECT_NE(with({"--bf16", "--hadamard", "16"}).find("multiple of 16 columns"), std::string::npos);
  EXPECT_NE(
      with({"--bf16", "--hadamard", "16", "--orientation", "column"}).find("multiple of 16 rows"),
      std::string::npos);
  write_source(24, 40, Dtype::kF32);
  EXPECT_NE(with({"--bf16"}).find("leave --bf16 out"), std::string::npos);
  EXPECT_THROW(run({"--format", "nvfp4", "--input", dir_ / "no.npy", "-o", dir_ / "q.h5"}),
               data::Error);
}

TEST_F(QuantizeCommand, AnExistingFileStaysUntilTheNewOneIsComplete) {
  write_source(512, 512);
  data::write_file(dir_ / "q.h5", "before");
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit small = old;
  small.rlim_cur = 1 << 18;  // a disk that fills up
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string text = data::error_of(
      [&] {
        quantize({"--format", "nvfp4"});
      },
      data::ErrorKind::kDisk);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  EXPECT_NE(text.find("larger than the file system"), std::string::npos) << text;
  EXPECT_EQ(data::read_file(dir_ / "q.h5"), "before");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_.str()), {}), 2);

  const Hdf5File file = quantize({"--format", "nvfp4"});
  expect_group(file, "/rowwise",
               expected(precision::default_spec(QuantFormat::kNvfp4), Orientation::kRowwise));
  data::error_of(
      [&] {
        run({"--format", "nvfp4", "--input", dir_ / "x.npy", "-o", dir_ / "no/folder.h5"});
      },
      data::ErrorKind::kDisk);
}

}  // namespace
}  // namespace qstep::trainer
