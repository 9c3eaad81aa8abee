// Walks the #include lines of every room and fails on an arrow that the design does not draw:
//
//   precision <- ops <- parallel <- trainer -> data
//
// and those between the folders of trainer/ on an arrow that points up.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace qstep::test {
namespace {

namespace fs = std::filesystem;

// Each room and the rooms it may include besides itself.
const std::map<std::string, std::set<std::string>, std::less<>> kMayInclude = {
    {"precision", {}},
    {"ops", {"precision"}},
    {"parallel", {"ops", "precision"}},
    {"data", {}},
    {"trainer", {"precision", "ops", "parallel", "data"}},
};

// The folders of trainer/, lowest first: each may include itself and those before it (the table in
// trainer/README.md). What lies beside them, main.cpp, may include all.
const std::vector<std::string> kTrainerFolders = {
    "base", "config",     "machine",   "timing", "checkpoint", "model",  "backend", "step",
    "plan", "quantizers", "inference", "run",    "bench",      "report", "command"};

// The one arrow that points upwards: timing.peak may name a machine, and what a machine costs
// depends on the model's configuration.
constexpr std::string_view kUpwards = "trainer/config/config_checks.cpp",
                           kUpwardsTo = "trainer/machine/rank_peaks.h";

// The path between the quotes or brackets of an #include line.
std::optional<std::string> included_path(std::string_view line) {
  const auto skip_spaces = [&] {
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
  };
  const auto skip = [&](std::string_view word) {
    skip_spaces();
    if (!line.starts_with(word)) return false;
    line.remove_prefix(word.size());
    return true;
  };
  if (!skip("#") || !skip("include")) return std::nullopt;
  skip_spaces();
  if (line.empty() || (line.front() != '"' && line.front() != '<')) return std::nullopt;
  const char close = line.front() == '<' ? '>' : '"';
  line.remove_prefix(1);
  return std::string(line.substr(0, line.find(close)));
}

// One message for each forbidden #include in `source`, a file of `room`.
std::vector<std::string> violations(const std::string& room, const std::string& file,
                                    std::istream& source) {
  std::vector<std::string> found;
  std::string line;
  for (int number = 1; std::getline(source, line); ++number) {
    const std::optional<std::string> path = included_path(line);
    if (!path) continue;
    const std::string first = fs::path(*path).begin()->string();
    const auto complain = [&](std::string_view why) {
      found.push_back(fmt::format("{}:{}: includes \"{}\": {}", file, number, *path, why));
    };
    if (first == "..") {
      complain("paths of ours start at the root");
    } else if (first == "tests") {
      complain("rooms do not include tests");
    } else if (first != room && kMayInclude.contains(first) &&
               !kMayInclude.at(room).contains(first)) {
      complain(fmt::format("{} may not include {}", room, first));
    }
  }
  return found;
}

// The place of the folder of `path`, "trainer/FOLDER/...", among them; behind the last where it is
// in none.
size_t trainer_height(const fs::path& path) {
  const auto part = std::next(path.begin());
  return static_cast<size_t>(std::ranges::find(kTrainerFolders, part->string()) -
                             kTrainerFolders.begin());
}

// One message for each #include in `file`, of trainer/, that points to a higher folder.
std::vector<std::string> upward_includes(const std::string& file, std::istream& source) {
  std::vector<std::string> found;
  std::string line;
  for (int number = 1; std::getline(source, line); ++number) {
    const std::optional<std::string> path = included_path(line);
    if (!path || !path->starts_with("trainer/")) continue;
    if (file == kUpwards && *path == kUpwardsTo) continue;
    if (trainer_height(*path) > trainer_height(file)) {
      found.push_back(
          fmt::format("{}:{}: includes \"{}\", which lies above it", file, number, *path));
    }
  }
  return found;
}

bool is_source(const fs::path& path) {
  static const std::set<std::string> kExtensions = {".h", ".cpp", ".cu", ".cuh", ".inc"};
  return kExtensions.contains(path.extension().string());
}

TEST(Layering, EveryIncludeFollowsAnArrow) {
  for (const auto& [room, may_include] : kMayInclude) {
    int n_files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(QSTEP_SOURCE_DIR) / room)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      ++n_files;
      std::ifstream source(entry.path());
      ASSERT_TRUE(source) << entry.path();
      const std::string file = fs::relative(entry.path(), QSTEP_SOURCE_DIR).string();
      for (const std::string& message : violations(room, file, source)) ADD_FAILURE() << message;
    }
    EXPECT_GT(n_files, 0) << room << " holds no sources: was it moved?";
  }
}

TEST(Layering, FoldersOfTheTrainerIncludeDownwards) {
  std::set<std::string> folders;
  const fs::path root = QSTEP_SOURCE_DIR;
  for (const auto& entry : fs::recursive_directory_iterator(root / "trainer")) {
    if (!entry.is_regular_file() || !is_source(entry.path())) continue;
    const std::string file = fs::relative(entry.path(), root).string();
    if (file != "trainer/main.cpp") folders.insert(std::next(fs::path(file).begin())->string());
    std::ifstream source(entry.path());
    ASSERT_TRUE(source) << entry.path();
    for (const std::string& message : upward_includes(file, source)) ADD_FAILURE() << message;
  }
  EXPECT_EQ(folders, std::set(kTrainerFolders.begin(), kTrainerFolders.end()));
}

TEST(Layering, IncludesThatPointUpwardsAreFound) {
  const auto upward_includes_of = [](const std::string& file, const std::string& text) {
    std::istringstream source(text);
    return upward_includes(file, source);
  };
  const std::string includes =
      "#include \"trainer/base/format.h\"\n#include \"trainer/run/metrics.h\"\n";
  EXPECT_EQ(upward_includes_of("trainer/model/block.cpp", includes).front(),
            "trainer/model/block.cpp:2: includes \"trainer/run/metrics.h\", which lies above it");
  EXPECT_EQ(upward_includes_of("trainer/model/block.cpp", includes).size(), 1u);
  EXPECT_TRUE(upward_includes_of("trainer/run/train_run.cpp", includes).empty());
  EXPECT_TRUE(upward_includes_of("trainer/main.cpp", includes).empty());
  EXPECT_EQ(upward_includes_of(std::string(kUpwards), includes).size(), 1u);
}

std::vector<std::string> violations_of(const std::string& room, const std::string& text) {
  std::istringstream source(text);
  return violations(room, "sample.cpp", source);
}

TEST(Layering, ForbiddenArrowsAreFound) {
  EXPECT_EQ(violations_of("ops", "#include \"trainer/model/model.h\"\n").size(), 1u);
  EXPECT_EQ(violations_of("ops", "  #  include <parallel/comm.h>\n").size(), 1u);
  EXPECT_EQ(violations_of("precision", "#include \"ops/tensor.h\"\n").size(), 1u);
  EXPECT_EQ(violations_of("parallel", "#include \"data/loader.h\"\n").size(), 1u);
  EXPECT_EQ(violations_of("data", "#include \"ops/error.h\"\n").size(), 1u);
  EXPECT_EQ(violations_of("trainer", "#include \"tests/support/compare.h\"\n").size(), 1u);
  EXPECT_EQ(violations_of("ops", "#include \"../trainer/model/model.h\"\n").size(), 1u);
  EXPECT_EQ(violations_of("data", "#include <vector>\n#include \"ops/ops.h\"\n").front(),
            "sample.cpp:2: includes \"ops/ops.h\": data may not include ops");
}

TEST(Layering, AllowedArrowsAreNot) {
  EXPECT_TRUE(violations_of("trainer",
                            "#include \"data/loader.h\"\n#include \"ops/ops.h\"\n"
                            "#include \"trainer/model/model.h\"\n#include <omp.h>\n")
                  .empty());
  EXPECT_TRUE(
      violations_of("ops", "// #include \"trainer/model/model.h\"\n#pragma once\n").empty());
}

}  // namespace
}  // namespace qstep::test
