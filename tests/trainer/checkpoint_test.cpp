// Saving, listing, choosing and reading checkpoints when nothing goes wrong, and damage of every
// kind.
#include "trainer/checkpoint/checkpoint.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "tests/trainer/checkpoint_testing.h"
#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/checkpoint_manifest.h"

namespace qstep::trainer {
namespace {

namespace fs = std::filesystem;
using testing::code_of;
using testing::Contents;
using testing::holds_its_contents;
using testing::names_in;
using testing::TemporaryFolder;
using Names = std::vector<std::string>;

void ignore(const CheckpointInfo&) {}

TEST(Checkpoint, ComesBackWithTheSameBits) {
  const TemporaryFolder root;
  Contents(12).save(root.path());
  const auto newest = newest_checkpoint(root.path(), ignore);
  ASSERT_TRUE(newest.has_value());
  EXPECT_EQ(*newest, root / "step-00000012");
  EXPECT_TRUE(holds_its_contents(*newest));
  EXPECT_EQ(names_in(*newest),
            (Names{"manifest.json", "rank00000.h5", "state.json", "tokenizer.model"}));
  const CheckpointReader reader(*newest);
  EXPECT_TRUE(reader.has("master/wte.weight"));
  EXPECT_FALSE(reader.has("master/wte"));
}

TEST(Checkpoint, StepsFollowTheProtocol) {
  const TemporaryFolder root;
  Contents(1).save(root.path());
  Names steps;
  const auto record = [&](std::string_view step, const std::string& path) {
    const std::string name = fs::path(path).filename();
    steps.push_back(fmt::format("{} {}", step, name.substr(0, name.find(".tmp-"))));
    return 0;
  };
  Contents(2).save(root.path(), 1, record);
  const std::string folder = fs::path(root.path()).filename();
  ASSERT_GE(steps.size(), 2u);
  // The doomed folder carries a random name.
  EXPECT_TRUE(steps[steps.size() - 1].starts_with("remove step-00000001.del-"));
  EXPECT_TRUE(steps[steps.size() - 2].starts_with("rename step-00000001.del-"));
  steps.resize(steps.size() - 2);
  EXPECT_EQ(steps, (Names{"check the free space " + folder,
                          "create the folder step-00000002",
                          "create rank00000.h5",
                          "write wte.weight",
                          "write wte.weight",
                          "write wte.weight",
                          "write final_norm.weight",
                          "write counts",
                          "close rank00000.h5",
                          "fsync rank00000.h5",
                          "checksum rank00000.h5",
                          "create state.json",
                          "write state.json",
                          "fsync state.json",
                          "create tokenizer.model",
                          "write tokenizer.model",
                          "fsync tokenizer.model",
                          "fsync the folder step-00000002",
                          "create manifest.json",
                          "write manifest.json",
                          "fsync manifest.json",
                          "fsync the folder step-00000002",
                          "rename step-00000002",
                          "fsync the folder " + folder,
                          "create latest",
                          "write latest",
                          "fsync latest",
                          "rename latest",
                          "fsync the folder " + folder}));
}

// Written by the format's first version.
TEST(Checkpoint, OldOnesComeBackToo) {
  const std::string path = std::string(QSTEP_TEST_FILES) + "/checkpoint_v1/step-00000012";
  EXPECT_EQ(verify_checkpoint(path, Verify::kFull), "");
  EXPECT_TRUE(holds_its_contents(path));
  const CheckpointReader reader(path);
  std::vector<float> all(7 * 13), run(20);
  reader.read({"master/wte.weight", ops::view(std::span(all), 7, 13)});
  reader.read({"master/wte.weight", ops::view(std::span(run)), run_of(whole(7, 13), 31, 20)});
  EXPECT_EQ(std::memcmp(all.data() + 31, run.data(), run.size() * sizeof(float)), 0);
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  const TemporaryFolder root;
  Contents(5).save(root.path());
  Contents(5).save(root.path());
  EXPECT_EQ(names_in(root.path()), (Names{"latest", "step-00000005"}));
  EXPECT_TRUE(holds_its_contents(root / "step-00000005"));
}

TEST(Checkpoint, RetentionKeepsTheNewestAndTheTargetOfLatest) {
  const TemporaryFolder root;
  for (const int64_t step : {10, 20, 30, 40}) Contents(step).save(root.path(), 2);
  EXPECT_EQ(names_in(root.path()), (Names{"latest", "step-00000030", "step-00000040"}));
  // A run that went back to step 30 and saved 35: older than two others, but `latest`.
  Contents(50).save(root.path());
  Contents(35).save(root.path(), 2);
  EXPECT_EQ(names_in(root.path()),
            (Names{"latest", "step-00000035", "step-00000040", "step-00000050"}));
  EXPECT_TRUE(read_file(root / "latest").starts_with("step-00000035 "));
}

TEST(Checkpoint, DamagedOnesDoNotCountAsKept) {
  const TemporaryFolder root;
  for (const int64_t step : {1, 2}) Contents(step).save(root.path());
  fs::remove(root / "step-00000002/state.json");
  Contents(3).save(root.path(), 2);
  EXPECT_EQ(names_in(root.path()),
            (Names{"latest", "step-00000001", "step-00000002", "step-00000003"}));
}

TEST(Checkpoint, ListIsInOrderOfSteps) {
  const TemporaryFolder root;
  for (const int64_t step : {123456789, 7, 12}) Contents(step).save(root.path());
  const std::vector<CheckpointInfo> list = list_checkpoints(root.path(), Verify::kFull);
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].step, 7);
  EXPECT_EQ(list[1].step, 12);
  EXPECT_EQ(list[2].step, 123456789);
  int64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(list[0].path)) {
    if (entry.path().filename() != kManifestFile) bytes += static_cast<int64_t>(entry.file_size());
  }
  EXPECT_EQ(list[0].bytes, bytes);
  EXPECT_EQ(list[0].problem, "");
}

TEST(Checkpoint, NothingToResumeFromIsNotAnError) {
  const TemporaryFolder root;
  EXPECT_FALSE(newest_checkpoint(root.path(), ignore).has_value());
  EXPECT_FALSE(newest_checkpoint(root / "absent", ignore).has_value());
  EXPECT_TRUE(list_checkpoints(root / "absent", Verify::kFull).empty());
  remove_stale_temporaries(root / "absent");
}

TEST(Checkpoint, MayBeKeptUnderAnotherName) {
  const TemporaryFolder run;
  Contents(3).save(run / "checkpoints");
  EXPECT_EQ(checkpoint_root(run.path()), run / "checkpoints");
  EXPECT_EQ(checkpoint_root(run / "checkpoints"), run / "checkpoints");
  fs::rename(run / "checkpoints/step-00000003", run / "my-best");
  EXPECT_EQ(verify_checkpoint(run / "my-best", Verify::kFull), "");
  const CheckpointInfo info = inspect_checkpoint((run / "my-best") + "/", Verify::kFull);
  EXPECT_EQ(info.problem, "");
  EXPECT_EQ(info.path, run / "my-best");
  EXPECT_EQ(info.step, 3);
  EXPECT_TRUE(holds_its_contents(run / "my-best"));
}

TEST(Checkpoint, FolderNames) {
  EXPECT_EQ(step_folder(100), "step-00000100");
  EXPECT_EQ(step_folder(1234567890), "step-1234567890");
  for (const char* name : {"step-1", "step-0000001x", "step-", "steps-00000001", "latest",
                           "step-00000001.bak", "step-0000-001", "step-99999999999999999999"}) {
    EXPECT_FALSE(parse_folder_name(name).has_value()) << name;
  }
  EXPECT_EQ(parse_folder_name("step-00000001.tmp-ab")->kind, FolderKind::kTemporary);
  EXPECT_EQ(parse_folder_name("step-00000001.old-ab")->kind, FolderKind::kOld);
  EXPECT_EQ(parse_folder_name("step-00000001.old-ab.del-cd")->kind, FolderKind::kDeleted);
}

TEST(Checkpoint, RefusesAnotherModel) {
  const TemporaryFolder root;
  Contents(1).save(root.path());
  const CheckpointReader reader(root / "step-00000001");
  std::vector<float> values(100);
  std::string text;
  const auto read = [&](const std::string& name, int64_t rows, int64_t cols) {
    return code_of(
        [&] {
          reader.read({name, ops::matrix(values.data(), ops::Dtype::kF32, rows, cols)});
        },
        &text);
  };
  EXPECT_EQ(read("master/wte.weight", 7, 13), ops::ExitCode::kOk);
  EXPECT_EQ(read("master/wte.weight", 13, 7), ops::ExitCode::kCheckpoint);
  EXPECT_NE(text.find("master/wte.weight"), std::string::npos);
  EXPECT_NE(text.find("[7, 13]"), std::string::npos);
  EXPECT_EQ(read("weight/wte.weight", 7, 13), ops::ExitCode::kCheckpoint);
  EXPECT_EQ(read("master/head.weight", 7, 13), ops::ExitCode::kCheckpoint);
}

// ---- damage ---------------------------------------------------------------------------

// Files of a checkpoint, of which any byte may be hit.
Names files_of(const std::string& checkpoint) {
  Names files;
  for (const std::string& name : names_in(checkpoint)) files.push_back(checkpoint + "/" + name);
  return files;
}

void flip_bit(const std::string& path, uint64_t position, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(position));
  const auto byte = static_cast<char>(file.get() ^ (1 << bit));
  file.seekp(static_cast<std::streamoff>(position));
  file.put(byte);
}

// The checkpoint of step 2 is refused by everyone, and a resume takes step 1 and says why.
void expect_refused(const TemporaryFolder& root, const std::string& what) {
  const std::string path = root / "step-00000002";
  EXPECT_NE(verify_checkpoint(path, Verify::kFull), "") << what;
  EXPECT_EQ(code_of([&] { CheckpointReader reader(path); }), ops::ExitCode::kCheckpoint) << what;
  std::string reason;
  const auto newest =
      newest_checkpoint(root.path(), [&](const CheckpointInfo& info) { reason = info.problem; });
  EXPECT_EQ(newest.value_or(""), root / "step-00000001") << what;
  EXPECT_NE(reason.find("step-00000002"), std::string::npos) << what << ": " << reason;
}

TEST(CheckpointDamage, EveryFlippedBitIsFound) {
  const TemporaryFolder root;
  for (const int64_t step : {1, 2}) Contents(step).save(root.path());
  const Names files = files_of(root / "step-00000002");
  std::mt19937_64 random(20261);
  constexpr int kTrialsPerFile = 100;
  for (const std::string& file : files) {
    const uint64_t size = fs::file_size(file);
    for (int trial = 0; trial < kTrialsPerFile; ++trial) {
      const uint64_t position = random() % size;
      const int bit = static_cast<int>(random() % 8);
      flip_bit(file, position, bit);
      expect_refused(root, fmt::format("{} byte {} bit {}", file, position, bit));
      flip_bit(file, position, bit);
    }
  }
  EXPECT_TRUE(holds_its_contents(root / "step-00000002"));
}

TEST(CheckpointDamage, EveryBitOfAManifestMatters) {
  const TemporaryFolder root;
  Contents(1).save(root.path());
  const std::string path = root / "step-00000001/manifest.json";
  const uint64_t size = fs::file_size(path);
  for (uint64_t position = 0; position < size; ++position) {
    const int bit = static_cast<int>(position % 8);
    flip_bit(path, position, bit);
    EXPECT_NE(verify_checkpoint(root / "step-00000001", Verify::kFast), "") << position;
    flip_bit(path, position, bit);
  }
}

TEST(CheckpointDamage, NamesTheTensorAndBothHashes) {
  const TemporaryFolder root;
  for (const int64_t step : {1, 2}) Contents(step).save(root.path());
  const Manifest manifest = read_manifest(root / "step-00000002");
  for (const ManifestTensor& tensor : manifest.tensors) {
    const TensorSlice& slice = tensor.slices.at(0);
    const std::string file = root / "step-00000002/" + slice.file;
    const auto position = static_cast<uint64_t>(slice.offset + 3);
    flip_bit(file, position, 5);
    const std::string problem = verify_checkpoint(root / "step-00000002", Verify::kFull);
    const std::string found =
        hash_file_range(file, slice.offset, slice.held.count * ops::size_bytes(tensor.dtype));
    for (const std::string& part : {file, tensor.name, slice.hash, found}) {
      EXPECT_NE(problem.find(part), std::string::npos) << problem;
    }
    flip_bit(file, position, 5);
  }
}

TEST(CheckpointDamage, TruncationIsFound) {
  const TemporaryFolder root;
  for (const int64_t step : {1, 2}) Contents(step).save(root.path());
  std::mt19937_64 random(7);
  for (const std::string& file : files_of(root / "step-00000002")) {
    const std::string whole = read_file(file);
    for (const uint64_t size : {uint64_t{0}, random() % whole.size(), uint64_t{whole.size() - 1}}) {
      fs::resize_file(file, size);
      expect_refused(root, fmt::format("{} cut to {}", file, size));
      fs::resize_file(file, whole.size() + 1);
      expect_refused(root, fmt::format("{} grown", file));
      std::ofstream(file, std::ios::binary) << whole;
    }
  }
}

TEST(CheckpointDamage, MissingAndSwappedFilesAreFound) {
  const TemporaryFolder root;
  for (const int64_t step : {1, 2}) Contents(step).save(root.path());
  for (const std::string& name : names_in(root / "step-00000002")) {
    const std::string file = root / "step-00000002/" + name;
    fs::rename(file, root / "kept");
    expect_refused(root, name + " deleted");
    fs::create_directory(file);
    expect_refused(root, name + " is a folder");
    fs::remove(file);
    if (name != kTokenizerFile) {  // the same in both
      fs::copy_file(root / "step-00000001/" + name, file);
      expect_refused(root, name + " of another step");
      fs::remove(file);
    }
    fs::rename(root / "kept", file);
  }
  EXPECT_TRUE(holds_its_contents(root / "step-00000002"));
  // Two whole checkpoints under each other's names.
  fs::rename(root / "step-00000001", root / "step-00000009");
  EXPECT_NE(verify_checkpoint(root / "step-00000009", Verify::kFast), "");
}

TEST(CheckpointDamage, NeverStartsFromTheBeginningSilently) {
  const TemporaryFolder root;
  for (const int64_t step : {1, 2}) {
    Contents(step).save(root.path());
    fs::remove(root / (step_folder(step) + "/manifest.json"));
  }
  int passed_over = 0;
  std::string text;
  const auto code = code_of(
      [&] { newest_checkpoint(root.path(), [&](const CheckpointInfo&) { ++passed_over; }); },
      &text);
  EXPECT_EQ(code, ops::ExitCode::kCheckpoint);
  EXPECT_EQ(passed_over, 2);
  EXPECT_NE(text.find("step-00000001"), std::string::npos);
  EXPECT_NE(text.find("step-00000002"), std::string::npos);
}

}  // namespace
}  // namespace qstep::trainer
