// Recipes against each other, as a user compares them: qstep bench step with a list, and
// scripts/recipe_sweep.sh on a corpus of a few kilobytes.
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class RecipeSweep : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "qstep-sweep-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // A command of the shell, in the test's folder: its exit code; what it printed is in out_, err_.
  int shell(const std::string& command) {
    const int status = std::system(
        ("cd '" + folder_.string() + "' && { " + command + "; } > out.txt 2> err.txt < /dev/null")
            .c_str());
    out_ = read_file(folder_ / "out.txt");
    err_ = read_file(folder_ / "err.txt");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string sweep_command(const std::string& options, const std::string& out = "sweep") const {
    return "'" QSTEP_SCRIPTS "/recipe_sweep.sh' --qstep '" QSTEP_BINARY "' --out '" +
           folder_.string() + "/" + out + "' --corpus '" + folder_.string() + "/corpus.h5' " +
           options;
  }
  int sweep(const std::string& options, const std::string& out = "sweep") {
    return shell(sweep_command(options, out));
  }
  // A sweep that gets SIGINT when `file` of its folder has a line with `text`: its exit code.
  int interrupted_sweep(const std::string& options, const std::string& file,
                        const std::string& text) {
    // As from a terminal, even where this test runs in the background, which ignores SIGINT.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    std::string name = "bash", flag = "-c",
                command = "exec " + sweep_command(options) + " > '" +
                          (folder_ / "out.txt").string() + "' 2> '" +
                          (folder_ / "err.txt").string() + "' < /dev/null";
    char* const arguments[] = {name.data(), flag.data(), command.data(), nullptr};
    pid_t pid = -1;
    const int problem = posix_spawnp(&pid, "bash", nullptr, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    if (problem != 0) return -1;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
      if (contains(read_file(folder_ / "sweep" / file), text)) {
        kill(pid, SIGINT);
        waitpid(pid, &status, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    out_ = read_file(folder_ / "out.txt");
    err_ = read_file(folder_ / "err.txt");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void make_corpus() {
    {
      std::ofstream text(folder_ / "text.txt");
      for (int i = 0; i < 2000; ++i) text << "line " << i * i % 997 << " of the text\n";
    }
    ASSERT_EQ(shell("'" QSTEP_BINARY
                    "' data prepare text.txt --tokenizer bytes --validation-fraction 0.1 -o "
                    "corpus.h5"),
              0)
        << err_;
  }
  // A recipe's row of the table in `text`, up to its column of times.
  static std::string losses(const std::string& text, const std::string& recipe) {
    const size_t row = text.find("| `" + recipe + "` | ");
    size_t end = row;
    for (int column = 0; column < 4; ++column) end = text.find('|', end + 1);
    return text.substr(row, end - row);
  }
  static constexpr const char* kTinyModel =
      " --set model.n_layers=2 --set model.width=128 --set model.n_heads=2"
      " --set model.n_kv_heads=2 --set model.ffn_width=128 --set train.seq_len=32";

  std::filesystem::path folder_;
  std::string out_, err_;
};

TEST_F(RecipeSweep, BenchStepTakesTurnsWithTheFirstRecipe) {
  const std::string command =
      "'" QSTEP_BINARY "' bench step --model llama-1m --batch 1 --seq 128 --steps 3 --warmup 1";
  ASSERT_EQ(shell(command + " --precision bf16,nvfp4,fp8-current --json"), 0) << err_;
  const auto json = nlohmann::json::parse(out_);
  EXPECT_EQ(json["baseline"], "bf16");
  const auto& recipes = json["recipes"];
  ASSERT_EQ(recipes.size(), 3u);
  EXPECT_EQ(recipes[0]["precision"], "bf16");
  EXPECT_FALSE(recipes[0].contains("ratio"));
  const char* const names[] = {"nvfp4", "fp8-current"};
  for (size_t i = 1; i < recipes.size(); ++i) {
    const auto& recipe = recipes[i];
    EXPECT_EQ(recipe["precision"], names[i - 1]);
    EXPECT_EQ(recipe["emulated"], true);
    EXPECT_GT(recipe["ratio"], 0.0);
    EXPECT_LE(recipe["ratio_quartiles"][0], recipe["ratio_quartiles"][1]);
    EXPECT_GT(recipe["phases_ms"]["backward"], 0.0);
  }

  ASSERT_EQ(shell(command + " --precision bf16,nvfp4"), 0) << err_;
  EXPECT_TRUE(contains(out_, "nvfp4  emulated")) << out_;
  ASSERT_EQ(shell(command + " --precision nvfp4"), 0) << err_;
  EXPECT_TRUE(contains(out_, "nvfp4 (emulated)")) << out_;
  EXPECT_EQ(shell(command + " --precision bf16,nvfp5"), 20);
  EXPECT_TRUE(contains(err_, "nvfp5")) << err_;
}

TEST_F(RecipeSweep, ReportsTheGapOfEveryRecipeAndGoesOn) {
  make_corpus();
  const std::string options =
      std::string(" --recipes fp32,nvfp4 --seeds 1,2 --steps 4") + kTinyModel;
  ASSERT_EQ(sweep(options), 0) << out_ << err_;
  const std::string table = out_.substr(out_.find("| recipe |"));
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 5) << out_;  // two of head, three recipes
  EXPECT_TRUE(contains(table, "| `nvfp4` | ")) << table;
  EXPECT_TRUE(contains(table, " ± ")) << table;
  EXPECT_TRUE(contains(table, " emulated | 2 |")) << table;
  EXPECT_TRUE(contains(read_file(folder_ / "sweep/report.md"), table));

  // What is finished is not done again: the same table, and no line of progress.
  ASSERT_EQ(sweep(options), 0) << out_ << err_;
  EXPECT_TRUE(contains(out_, table)) << out_;
  EXPECT_FALSE(contains(out_, "[1/6]")) << out_;
  ASSERT_EQ(sweep("--report"), 0) << err_;
  EXPECT_TRUE(contains(out_, table)) << out_;

  // A run that is missing is made again, to the same losses.
  std::filesystem::remove_all(folder_ / "sweep/runs/nvfp4-s2");
  ASSERT_EQ(sweep("--report"), 0) << err_;
  EXPECT_FALSE(contains(out_, " emulated | 2 |")) << out_;
  ASSERT_EQ(sweep(options), 0) << out_ << err_;
  EXPECT_TRUE(contains(out_, "[6/6] nvfp4, seed 2")) << out_;
  EXPECT_EQ(losses(out_, "nvfp4"), losses(table, "nvfp4"));

  EXPECT_EQ(sweep("--steps 5 --recipes bf16"), 2);  // other settings in the same folder
  EXPECT_EQ(sweep("--steps none"), 2);
  EXPECT_EQ(sweep("--no-such-option"), 2);
}

TEST_F(RecipeSweep, GoesOnAfterCtrlCToTheSameLosses) {
  make_corpus();
  const std::string options = std::string(" --recipes nvfp4 --seeds 1 --steps 120") + kTinyModel;
  ASSERT_EQ(interrupted_sweep(options, "runs/bf16-s1/metrics.jsonl", "\"step\":5,"), 10)
      << out_ << err_;
  EXPECT_TRUE(contains(out_, "Stopped; the same command goes on from here.")) << out_;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "sweep/runs/bf16-s1/eval_bf16.json"));
  ASSERT_EQ(sweep(options), 0) << out_ << err_;
  EXPECT_TRUE(contains(out_, "[1/2] bf16, seed 1")) << out_;
  const std::string continued = out_;
  ASSERT_EQ(sweep(options, "untouched"), 0) << out_ << err_;
  for (const std::string recipe : {"bf16", "nvfp4"}) {
    EXPECT_EQ(losses(continued, recipe), losses(out_, recipe));
  }
}

TEST_F(RecipeSweep, DoesNotMixTwoRecipesOfOneName) {
  make_corpus();
  std::filesystem::create_directory(folder_ / "mine");
  const std::filesystem::path mine = folder_ / "mine/nvfp4.toml";
  const auto write = [&](const std::string& text) { std::ofstream(mine) << text; };
  const std::string with = " --seeds 1 --steps 2" + std::string(kTinyModel) + " --recipes ";

  write("title = \"mine\"\n[operands]\nx_fprop = \"nvfp4\"\n");
  EXPECT_EQ(sweep(with + "nvfp4,'" + mine.string() + "'"), 2);
  EXPECT_TRUE(contains(err_, "the name nvfp4 twice")) << err_;

  ASSERT_EQ(sweep(with + "'" + mine.string() + "'"), 0) << out_ << err_;
  write("title = \"other words\"\n[operands]\nx_fprop = \"nvfp4\"\n");
  EXPECT_EQ(sweep(with + "'" + mine.string() + "'"), 0) << out_ << err_;
  write("title = \"mine\"\n[operands]\nw_fprop = \"nvfp4\"\n");
  EXPECT_EQ(sweep(with + "'" + mine.string() + "'"), 2);
  EXPECT_TRUE(contains(err_, "made with another recipe")) << err_;
  EXPECT_EQ(sweep(with + "nvfp4"), 2);
  EXPECT_EQ(sweep(with + "nvfp5"), 20);
  EXPECT_TRUE(contains(err_, "nvfp5")) << err_;
}

}  // namespace
