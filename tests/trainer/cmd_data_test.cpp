// `qstep data` as a user calls it: arguments in, text or JSON out.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/llmc_tokens.h"
#include "tests/data/test_files.h"
#include "trainer/command/commands.h"

namespace qstep::trainer {
namespace {

using data::TempDir;
using data::write_file;

// stdout of `qstep data ARGUMENTS...`; exceptions pass.
std::string run(std::vector<std::string> arguments) {
  CLI::App app("test", "qstep");
  int exit_code = 0;
  add_data_command(app, exit_code);
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  arguments.push_back("data");
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  try {
    app.parse(std::move(arguments));
  } catch (...) {
    testing::internal::GetCapturedStdout();
    testing::internal::GetCapturedStderr();
    throw;
  }
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(exit_code, 0);
  return testing::internal::GetCapturedStdout();
}

TEST(DataCommand, PrepareInfoVerify) {
  const TempDir dir;
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "line " + std::to_string(i) + "\n";
  write_file(dir / "book.txt", text);
  const std::string store = dir / "s.h5";
  const std::string printed =
      run({"prepare", dir / "book.txt", "--vocab-size", "280", "-o", store});
  EXPECT_NE(printed.find("sentencepiece (vocabulary 280"), std::string::npos) << printed;

  const auto info = nlohmann::json::parse(run({"info", store, "--json"}));
  EXPECT_EQ(info.at("tokenizer"), "sentencepiece");
  EXPECT_EQ(info.at("vocab_size"), 280);
  EXPECT_EQ(info.at("source"), dir / "book.txt");
  EXPECT_EQ(info.at("train").at("num_bytes").get<size_t>() +
                info.at("validation").at("num_bytes").get<size_t>(),
            text.size());
  EXPECT_FALSE(info.contains("verified"));
  const auto verified = nlohmann::json::parse(run({"verify", store, "--json"}));
  EXPECT_EQ(verified.at("verified"), true);
  EXPECT_EQ(verified.at("train"), info.at("train"));
  EXPECT_NE(run({"info", store}).find("content hash"), std::string::npos);
  EXPECT_NE(run({"verify", store}).find("verified"), std::string::npos);
}

TEST(DataCommand, FolderWithGlobsAndBytes) {
  const TempDir dir;
  write_file(dir / "in/a.h", "int a;\n");
  write_file(dir / "in/b.hpp", "int b;\n");
  write_file(dir / "in/c.txt", "no\n");
  run({"prepare", dir / "in", "--glob", "*.h", "--glob", "*.hpp", "--tokenizer", "bytes",
       "--validation-fraction", "0", "-o", dir / "s.h5"});
  const auto info = nlohmann::json::parse(run({"info", dir / "s.h5", "--json"}));
  EXPECT_EQ(info.at("train").at("num_documents"), 2);
  EXPECT_EQ(info.at("train").at("num_tokens"), 16);  // 14 bytes and two ends
}

TEST(DataCommand, ImportFromLlmc) {
  const TempDir dir;
  data::write_llmc_tokens(dir / "t.bin", data::kLlmcGpt2, std::vector<uint32_t>{1, 2, 3, 50256});
  data::write_llmc_tokens(dir / "v.bin", data::kLlmcGpt2, std::vector<uint32_t>{4, 5});
  run({"import", "--from", "llmc", dir / "t.bin", "--validation", dir / "v.bin", "-o",
       dir / "s.h5"});
  const auto info = nlohmann::json::parse(run({"info", dir / "s.h5", "--json"}));
  EXPECT_EQ(info.at("vocab_size"), 50257);
  EXPECT_EQ(info.at("train").at("num_tokens"), 4);
  EXPECT_EQ(info.at("validation").at("num_tokens"), 2);
  EXPECT_THROW(run({"import", "--from", "other", dir / "t.bin", "-o", dir / "s.h5"}),
               CLI::ParseError);
}

TEST(DataCommand, ErrorsReachTheCaller) {
  const TempDir dir;
  EXPECT_THROW(run({"info", dir / "no.h5"}), data::Error);
  EXPECT_THROW(run({"prepare", dir / "no.txt", "-o", dir / "s.h5"}), data::Error);
  EXPECT_THROW(run({"prepare", dir / "no.txt"}), CLI::ParseError);
  EXPECT_THROW(run({}), CLI::ParseError);
}

TEST(DataCommand, EveryHelpTextHasAnExample) {
  CLI::App app("test", "qstep");
  int exit_code = 0;
  add_data_command(app, exit_code);
  CLI::App* group = app.get_subcommand("data");
  for (const char* name : {"prepare", "info", "verify", "import"}) {
    const std::string help = group->get_subcommand(name)->help();
    EXPECT_NE(help.find(std::string("qstep data ") + name), std::string::npos) << help;
  }
}

}  // namespace
}  // namespace qstep::trainer
