// The real binary: help of every command, and the exit codes of mistakes.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Outcome {
  int code = -1;
  std::string out, err;
};

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Cli : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "qstep-cli-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }

  // `arguments` as typed in a shell, in an empty folder.
  Outcome qstep(const std::string& arguments) {
    const std::string command = "cd '" + folder_.string() + "' && '" QSTEP_BINARY "' " + arguments +
                                " > out.txt 2> err.txt < /dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(folder_ / "out.txt"),
            read_file(folder_ / "err.txt")};
  }

  std::filesystem::path folder_;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The names under "Subcommands:" of a help text.
std::vector<std::string> subcommands_in(const std::string& help) {
  std::vector<std::string> names;
  std::istringstream lines(help);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("Subcommands:")) {
      inside = true;
    } else if (inside && line.starts_with("  ") && line.size() > 2 && line[2] != ' ') {
      names.push_back(line.substr(2, line.find(' ', 2) - 2));
    } else if (inside && !line.starts_with(" ")) {
      inside = false;
    }
  }
  return names;
}

TEST_F(Cli, EveryHelpShowsAnExample) {
  std::vector<std::string> paths = {""};
  for (size_t i = 0; i < paths.size(); ++i) {
    const Outcome help = qstep(paths[i] + " --help");
    EXPECT_EQ(help.code, 0) << paths[i];
    EXPECT_TRUE(contains(help.out, "Example")) << "no example: qstep" << paths[i];
    EXPECT_EQ(help.err, "") << paths[i];
    for (const std::string& name : subcommands_in(help.out)) paths.push_back(paths[i] + " " + name);
  }
  for (const char* path :
       {" train", " data prepare", " config print", " bench peak", " bench step", " bench ops",
        " bench plan", " ckpt verify", " plan", " doctor", " eval", " generate"}) {
    EXPECT_EQ(std::count(paths.begin(), paths.end(), path), 1) << path;
  }
}

TEST_F(Cli, Version) {
  const Outcome version = qstep("--version");
  EXPECT_EQ(version.code, 0);
  EXPECT_TRUE(version.out.starts_with("qstep ")) << version.out;
}

TEST_F(Cli, MistakesInTheCommandLine) {
  EXPECT_EQ(qstep("").code, 20);
  EXPECT_EQ(qstep("config").code, 20);
  EXPECT_EQ(qstep("doctor --no-such-option").code, 20);

  const Outcome unknown = qstep("trian");
  EXPECT_EQ(unknown.code, 20);
  EXPECT_EQ(unknown.out, "");
  EXPECT_TRUE(contains(unknown.err, "did you mean \"qstep train\"?")) << unknown.err;

  const Outcome nested = qstep("config pirnt");
  EXPECT_EQ(nested.code, 20);
  EXPECT_TRUE(contains(nested.err, "did you mean \"qstep config print\"?")) << nested.err;
}

TEST_F(Cli, MistakesInTheConfigurationAreReportedTogether) {
  const std::string file = write("run.toml", "[train]\nsteps = \"many\"\nsed = 3\n");
  const Outcome outcome = qstep("config print run.toml train.micro_batch=0");
  EXPECT_EQ(outcome.code, 20);
  EXPECT_EQ(outcome.out, "");
  EXPECT_TRUE(outcome.err.starts_with("error: 3 problems")) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "run.toml:2: train.steps = text \"many\"")) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "run.toml:3: there is no option train.sed")) << outcome.err;
  EXPECT_TRUE(contains(outcome.err, "command line: train.micro_batch = 0")) << outcome.err;

  EXPECT_EQ(qstep("train run.toml").code, 20);
  EXPECT_EQ(qstep("train missing.toml").code, 20);
  EXPECT_EQ(qstep("config print missing.toml").code, 20);
  EXPECT_EQ(qstep("plan missing.toml").code, 20);
}

TEST_F(Cli, AMissingCorpusIsADataError) {
  write("run.toml", "[data]\ntrain = \"missing.h5\"\n[train]\nsteps = 1\n");
  const Outcome outcome = qstep("train run.toml");
  EXPECT_EQ(outcome.code, 21);
  EXPECT_TRUE(contains(outcome.err, "missing.h5")) << outcome.err;
}

TEST_F(Cli, ConfigPrintReadsBack) {
  const Outcome first = qstep("config print model.preset=gpt2-10m optimizer.lr=3e-4");
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(contains(first.out, "# command line"));
  write("again.toml", first.out);
  const auto first_json = nlohmann::json::parse(
      qstep("config print --json model.preset=gpt2-10m optimizer.lr=3e-4").out);
  const auto again_json = nlohmann::json::parse(qstep("config print again.toml --json").out);
  EXPECT_EQ(first_json["optimizer"]["lr"]["value"], 3e-4);
  EXPECT_EQ(first_json["optimizer"]["lr"]["origin"], "command line");
  for (const auto& [section, keys] : first_json.items()) {
    for (const auto& [key, entry] : keys.items()) {
      EXPECT_EQ(entry["value"], again_json[section][key]["value"]) << section << "." << key;
    }
  }
}

TEST_F(Cli, ConfigListsOptionsAndPresets) {
  EXPECT_TRUE(contains(qstep("config list").out, "optimizer.schedule"));
  EXPECT_TRUE(contains(qstep("config presets").out, "llama-405b"));
  EXPECT_GT(nlohmann::json::parse(qstep("config list --json").out).size(), 30u);
  EXPECT_GT(nlohmann::json::parse(qstep("config presets --json").out).size(), 10u);
}

TEST_F(Cli, RecipesAreListedShownAndChecked) {
  const Outcome list = qstep("recipe list --json");
  ASSERT_EQ(list.code, 0) << list.err;
  EXPECT_GE(nlohmann::json::parse(list.out).size(), 17u);
  // A run that is described says what it runs on.
  const Outcome on_cpu = qstep("recipe check mxfp8 llama-15m run.device=cpu --json");
  ASSERT_EQ(on_cpu.code, 0) << on_cpu.err;
  const auto checked = nlohmann::json::parse(on_cpu.out);
  EXPECT_EQ("cpu", checked.at("device"));
  EXPECT_EQ("emulated", checked.at("phases")[0].at("groups")[0].at("gemms").at("fprop").at("runs"));
  // What is shown is a recipe, the same one.
  const Outcome shown = qstep("recipe show nvfp4-late-bf16");
  ASSERT_EQ(shown.code, 0) << shown.err;
  write("copy.toml", shown.out);
  const std::string model = " gpt2-124m train.seq_len=256 train.steps=100 --json";
  const Outcome own = qstep("recipe check nvfp4-late-bf16" + model);
  const Outcome copy = qstep("recipe check copy.toml" + model);
  ASSERT_EQ(own.code, 0) << own.err;
  ASSERT_EQ(copy.code, 0) << copy.err;
  const auto phases = nlohmann::json::parse(own.out).at("phases");
  EXPECT_EQ(phases, nlohmann::json::parse(copy.out).at("phases"));
  ASSERT_EQ(phases.size(), 2u);
  EXPECT_EQ(phases[1].at("first_step"), 83);
  const auto& groups = phases[0].at("groups");
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].at("layers"), "blocks.0-9.*");
  EXPECT_EQ(groups[0].at("gemms").at("fprop").at("w_fprop"), "nvfp4 16x16");
  EXPECT_EQ(groups[0].at("gemms").at("wgrad").at("runs"), "emulated");
  EXPECT_EQ(groups[1].at("layers"), "blocks.10-11.*");
  EXPECT_EQ(groups[1].at("gemms").at("fprop").at("x_fprop"), "bf16");
}

// A vocabulary that is given needs no corpus.
TEST_F(Cli, ARecipeIsCheckedOnAModelWithAVocabularyOfItsOwn) {
  const Outcome outcome = qstep("recipe check nvfp4 model.vocab_size=256");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST_F(Cli, ARecipeThatCannotRunIsRefusedWithEveryLine) {
  write("bad.toml", "[operands]\nx_fprop = \"nvfp5\"\nw_fporp = \"nvfp4\"\n");
  for (const char* command : {"recipe check bad.toml", "recipe show bad.toml",
                              "train precision.recipe=bad.toml data.train=x.h5"}) {
    const Outcome outcome = qstep(command);
    EXPECT_EQ(outcome.code, 20) << command;
    EXPECT_TRUE(contains(outcome.err, "bad.toml:2: operands.x_fprop = \"nvfp5\"")) << outcome.err;
    EXPECT_TRUE(contains(outcome.err, "bad.toml:3: there is no key operands.w_fporp"))
        << outcome.err;
  }
  const Outcome shapes = qstep(
      "recipe check nvfp4 llama-1m train.micro_batch=1 train.seq_len=100 "
      "train.global_batch=1");
  EXPECT_EQ(shapes.code, 20);
  EXPECT_TRUE(contains(shapes.err, "train.seq_len = 96 or 112")) << shapes.err;
}

TEST_F(Cli, PlanDescribesTheLargestModel) {
  const Outcome text = qstep("plan llama-405b");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(contains(text.out, "405,853,388,800"));

  const auto json = nlohmann::json::parse(qstep("plan gpt2-124m train.seq_len=256 --json").out);
  EXPECT_EQ(json["n_parameters"], 124439808);
  EXPECT_EQ(json["seq_len"], 256);
  // 50304 rows of 768 are stored for the 50257 of the vocabulary.
  EXPECT_EQ(json["n_stored_parameters"], 124439808 + (50304 - 50257) * 768);
  EXPECT_EQ(json["state_bytes"]["bf16"]["sum"], 18 * json["n_stored_parameters"].get<int64_t>());

  const Outcome unknown = qstep("plan gpt2-125m");
  EXPECT_EQ(unknown.code, 20);
  EXPECT_TRUE(contains(unknown.err, "the nearest is \"gpt2-124m\"")) << unknown.err;
}

TEST_F(Cli, PlanTellsTheMemoryOfEveryRank) {
  const std::string plan = "plan llama-1m train.global_batch=32 train.micro_batch=4 ";
  const Outcome one = qstep(plan);
  EXPECT_FALSE(contains(one.out, "each of")) << one.out;
  const Outcome group = qstep(plan + "parallel.tensor=2");
  EXPECT_TRUE(contains(group.out, "each of 2 ranks, tensor 2 x data 1")) << group.out;
  const Outcome mesh = qstep(plan + "parallel.tensor=2 --ranks 8");
  EXPECT_TRUE(contains(mesh.out, "each of 8 ranks, tensor 2 x data 4")) << mesh.out;

  const auto whole = nlohmann::json::parse(qstep(plan + "--json").out);
  const auto json = nlohmann::json::parse(qstep(plan + "parallel.tensor=2 --ranks 8 --json").out);
  EXPECT_EQ(whole["ranks"], 1);
  EXPECT_EQ(json["ranks"], 8);
  EXPECT_EQ(json["tensor"], 2);
  EXPECT_EQ(json["data"], 4);
  EXPECT_LT(json["run_bytes"]["weights"], whole["run_bytes"]["weights"]);
  EXPECT_EQ(json["n_parameters"], whole["n_parameters"]);  // of the model

  const Outcome torn = qstep(plan + "parallel.tensor=2 --ranks 3");
  EXPECT_EQ(torn.code, 20);
  EXPECT_TRUE(contains(torn.err,
                       "parallel.tensor = 2 does not divide the 3 ranks of this run: start 2 or 4 "
                       "ranks"))
      << torn.err;
}

TEST_F(Cli, PlanPredictsTheStepOnAMachine) {
  const std::string plan = "plan llama-1b train.seq_len=2048 precision.recipe=nvfp4 ";
  const auto json = nlohmann::json::parse(qstep(plan + "--gpu h100 --nodes 1 --json").out);
  EXPECT_EQ(json["ranks"], 8);
  EXPECT_TRUE(json["emulated"]);  // on that machine
  EXPECT_GT(json["prediction"]["step_ms"], 0);
  EXPECT_FALSE(nlohmann::json::parse(qstep(plan + "--gpu b200 --json").out)["emulated"]);
  const Outcome text = qstep(plan + "--gpu h100 --ranks 4 --sweep");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(contains(text.out, "predicted step on h100")) << text.out;
  EXPECT_TRUE(contains(text.out, "micro_batch")) << text.out;

  const Outcome unknown = qstep(plan + "--gpu h10");
  EXPECT_EQ(unknown.code, 20);
  EXPECT_TRUE(contains(unknown.err, "the nearest is \"h100\"")) << unknown.err;
  EXPECT_EQ(qstep(plan + "--sweep").code, 20);
  EXPECT_EQ(qstep(plan + "--machine missing.toml").code, 20);
  write("mine.toml", "name = \"mine\"\n");
  const Outcome incomplete = qstep(plan + "--machine mine.toml");
  EXPECT_EQ(incomplete.code, 20);
  EXPECT_TRUE(contains(incomplete.err, "gpus_per_node is missing")) << incomplete.err;
}

TEST_F(Cli, DoctorTellsTheMachine) {
  EXPECT_EQ(qstep("doctor").code, 0);
  const auto json = nlohmann::json::parse(qstep("doctor --json").out);
  EXPECT_GE(json["processor"]["usable_cores"], 1);
  EXPECT_LE(json["processor"]["usable_cores"], json["processor"]["cores"]);
  EXPECT_GT(json["memory"]["total_bytes"], 0);
  EXPECT_TRUE(json["folder"]["writable"]);
  EXPECT_EQ(json["libraries"].size(), 4u);
  EXPECT_NE(json["cuda"]["usable"].get<bool>(),
            !json["cuda"]["why_not"].get<std::string>().empty());
  // The products of a GPU are there where one is.
  EXPECT_NE(json["cuda"]["products"].empty(), json["cuda"]["usable"].get<bool>());
  EXPECT_EQ(contains(qstep("doctor").out, "products on a GPU\n  none: "),
            !json["cuda"]["usable"].get<bool>());
}

TEST_F(Cli, BenchPeakMeasures) {
  const Outcome outcome = qstep("bench peak --seconds 0.02 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out);
  EXPECT_GT(json["fp32_flops_per_s"], 0);
  EXPECT_GT(json["triad_bytes_per_s"], 0);
  EXPECT_GE(json["bf16_flops_per_s"], json["bf16_gemm_flops_per_s"]);
}

TEST_F(Cli, BenchFollowsTheDgxcProtocol) {
  const std::string command =
      "bench step --model llama-1m --batch 1 --seq 32 --json --protocol dgxc --precision fp32,bf16";
  const Outcome outcome = qstep(command);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["averaged"], nlohmann::json({35, 44}));
  ASSERT_EQ(json["recipes"].size(), 2U);
  for (const auto& recipe : json["recipes"]) {
    EXPECT_EQ(recipe["step_ms"].size(), 50U);
    EXPECT_GT(recipe["s_per_iteration"], 0);
  }
  const Outcome refused = qstep(command + " --warmup 3");
  EXPECT_EQ(refused.code, 20);
  EXPECT_TRUE(contains(refused.err, "--protocol dgxc excludes --steps and --warmup"))
      << refused.err;
}

// Whatever takes more than a hundredth of a step is predicted.
TEST_F(Cli, BenchPlanPredictsEveryPhase) {
  const Outcome outcome = qstep("bench plan --precision bf16 --rounds 1 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out);
  ASSERT_EQ(json["rows"].size(), 6U);
  for (const auto& row : json["rows"]) {
    double predicted = 0;
    for (const auto& [name, phase] : row["phases"].items()) {
      predicted += phase["predicted_ms"].get<double>();
      if (name == "host_gap" || name == "data_wait") continue;
      if (phase["measured_ms"].get<double>() > 0.01 * row["measured_ms"].get<double>()) {
        EXPECT_GT(phase["predicted_ms"], 0) << name;
      }
    }
    EXPECT_NEAR(predicted, row["predicted_ms"].get<double>(), 1e-6 * predicted);
  }
}

TEST_F(Cli, BenchOpsIsSortedByWhatIsLost) {
  const Outcome outcome = qstep(
      "bench ops --model llama-1m --precision nvfp4 --batch 1 --seq 32 --steps 1 --warmup 1 --json "
      "model.n_layers=2");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto json = nlohmann::json::parse(outcome.out);
  double ms = 0, lost = INFINITY;
  int64_t fprops = 0;
  for (const auto& op : json["ops"]) {
    ms += op["ms"].get<double>();
    const double now = op["ms"].get<double>() - op["bound_ms"].get<double>();
    EXPECT_LE(now, lost) << op;
    lost = now;
    if (op["op"] == "gemm qkv fprop") fprops += op["calls"].get<int64_t>();
  }
  EXPECT_EQ(fprops, 2);
  EXPECT_NEAR(ms, json["ops_ms"].get<double>(), 1e-9);
  EXPECT_LE(ms, json["step_ms"].get<double>());
}

// Recipes take turns two steps at a time.
TEST_F(Cli, BenchStepCountsWhatItTimed) {
  const auto steps = [&](const std::string& recipes) {
    const Outcome outcome = qstep(
        "bench step --model llama-1m --batch 1 --seq 32 --steps 1 --warmup 1 --json --precision " +
        recipes);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out, nullptr, false)["steps"];
  };
  EXPECT_EQ(steps("fp32"), 1);
  EXPECT_EQ(steps("fp32,bf16"), 2);
}

TEST_F(Cli, ReportIsRenderedAgainFromItsJsonAlone) {
  const std::string log = write("theirs.log",
                                "completed step: 1, seconds: 2.5, TFLOP/s/device: 300, "
                                "Tokens/s/device: 6500, total_weights: 1, loss: 6.5\n"
                                "completed step: 2, seconds: 2.4, TFLOP/s/device: 310, "
                                "Tokens/s/device: 6600, total_weights: 1, loss: 6.25\n");
  const Outcome first = qstep("report --import theirs.log -o first");
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(contains(first.out, "training loss 6.25")) << first.out;
  std::filesystem::remove(log);
  const Outcome again = qstep("report --from first/report.json -o again");
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(again.out.substr(0, again.out.find('\n')), first.out.substr(0, first.out.find('\n')));
  for (const char* name : {"report.json", "report.md", "report.html"}) {
    const std::string text = read_file(folder_ / "first" / name);
    EXPECT_GT(text.size(), 100u);
    EXPECT_EQ(text, read_file(folder_ / "again" / name)) << name;
  }
}

TEST_F(Cli, ReportRefusesWhatIsNone) {
  write("other.json", "{\"schema\": 99, \"runs\": [], \"comparisons\": []}");
  write("broken.json", "{");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "name a run folder, --import LOG or --from report.json"},
      {"--from nowhere.json", "nowhere.json: there is no such file"},
      {"--from broken.json", "broken.json: not a report"},
      {"--from other.json", "other.json: schema 99, this qstep reads 1"},
      {"--import broken.json", "broken.json: no line is of a log of Megatron-LM"},
      {"nowhere", "nowhere: there is no metrics.jsonl"}};
  for (const auto& [arguments, text] : cases) {
    const Outcome outcome = qstep("report " + arguments);
    EXPECT_EQ(outcome.code, 20) << arguments;
    EXPECT_TRUE(contains(outcome.err, text)) << outcome.err;
  }
}

}  // namespace
