// scripts/gpu_check.sh with programs that stand in for the compiler, the GPU's and those that are
// built: what its table and its exit code say of how they end.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace {

namespace fs = std::filesystem;

class GpuCheck : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "qstep-gpu-check-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    fs::create_directories(folder_ / "source/scripts");
    fs::copy_file(QSTEP_SCRIPTS "/gpu_check.sh", folder_ / "source/scripts/gpu_check.sh");
    program("bin/nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.88'");
    program("bin/g++", "echo 13.3.0");
    program("bin/ninja", "");
    program("bin/cmake", "exit 0");
    program("bin/nvidia-smi", "echo '9.0, NVIDIA H200, 580.159.04'");
    program("built/gpu_one_test",
            "echo '[       OK ] One.Works (3 ms)'; echo '[  SKIPPED ] One.Needs2 (0 ms)'; "
            "echo '[  SKIPPED ] 1 test, listed below:'; echo '[  SKIPPED ] One.Needs2'");
    program("built/gpu_two_test", "echo '[       OK ] Two.Works (3 ms)'");
    program("built/gpu_memory_ops_test", "echo '[       OK ] Ops.Work (3 ms)'");
    program("bin/compute-sanitizer", "while [[ $1 == --* ]]; do shift 2; done; exec \"$@\"");
    program("built/qstep_bench_gpu", "echo '  AdamW 3500 GB/s'");
    program("qstep", "echo \"qstep $*\"");
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Those in built/ and qstep are where the build would leave them.
  void program(const std::string& path, const std::string& script) {
    const std::string build = "source/build/gpu_check/";
    const fs::path file =
        folder_ / (path.starts_with("bin/")     ? path
                   : path.starts_with("built/") ? build + "tests/gpu" + path.substr(5)
                                                : build + path);
    fs::create_directories(file.parent_path());
    std::ofstream(file) << "#!/bin/bash\n" << script << "\n";
    fs::permissions(file, fs::perms::owner_all);
  }
  // The exit code; table_ is what results.txt holds.
  int check(int seconds = 60) {
    const std::string root = folder_.string();
    const int status = std::system(("cd / && PATH='" + root + "/bin':$PATH OUT='" + root +
                                    "/out' '" + root + "/source/scripts/gpu_check.sh' --seconds " +
                                    std::to_string(seconds) + " > '" + root + "/printed' 2>&1")
                                       .c_str());
    table_ = read(folder_ / "out/results.txt");
    const std::string printed = read(folder_ / "printed");
    EXPECT_TRUE(printed.ends_with(table_)) << printed;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void expect_line(const std::string& part) const {
    EXPECT_NE(table_.find(part), std::string::npos) << '"' << part << "\" not in:\n" << table_;
  }
  static std::string read(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  fs::path folder_;
  std::string table_;
};

TEST_F(GpuCheck, EverythingPassedAndWasMeasured) {
  EXPECT_EQ(check(), 0) << table_;
  expect_line("GPU       NVIDIA H200, driver 580.159.04\n");
  expect_line("for sm_90a, nvcc 13.0, g++ 13.3.0\n");
  expect_line("tests     3 passed, 0 failed, 1 skipped\n");
  expect_line("sanitizer 4 of 4 checks passed on small sizes: ");
  expect_line("  AdamW 3500 GB/s\n");
  expect_line("qstep bench step --model llama-1b --batch 8 --seq 2048 ");
  expect_line("qstep bench step --model llama-1b --batch 2 --seq 8192 ");
  expect_line(" run.device=cuda run.cuda_graphs=false\n");
  EXPECT_EQ(table_.find("FAILED"), std::string::npos) << table_;
}

TEST_F(GpuCheck, BuildsForTheGpuThatIsThere) {
  program("bin/cmake", "echo \"$*\"");
  const auto settings = [&](const std::string& capability) {
    program("bin/nvidia-smi", "echo '" + capability + ", NVIDIA GPU, 580'");
    check();
    return read(folder_ / "out/build.log");
  };
  EXPECT_NE(settings("8.9").find("-DCMAKE_CUDA_ARCHITECTURES=89-real\n"), std::string::npos);
  EXPECT_NE(settings("12.0").find("-DCMAKE_CUDA_ARCHITECTURES=120a-real\n"), std::string::npos);
}

TEST_F(GpuCheck, FailedTestsAreNamed) {
  program("built/gpu_two_test",
          "echo '[  FAILED  ] Two.Works (3 ms)'; echo '[  FAILED  ] Two.Works'; exit 1");
  EXPECT_EQ(check(), 1);
  expect_line("tests     2 passed, 1 failed, 1 skipped\n");
  expect_line("FAILED: Two.Works (tests.log)\n");
  expect_line("  AdamW 3500 GB/s\n");
}

TEST_F(GpuCheck, ProgramsThatEndThemselvesFail) {
  program("built/gpu_two_test", "kill -SEGV $$");
  program("qstep", "exit 51");
  EXPECT_EQ(check(), 1);
  expect_line("tests     2 passed, 0 failed, 1 skipped\n");
  expect_line("FAILED: gpu_two_test (tests.log) ended with 139\n");
  expect_line("run.device=cuda ended with 51\n");
}

TEST_F(GpuCheck, WhatTakesTooLongIsStopped) {
  program("built/gpu_two_test", "exec sleep 600");
  EXPECT_EQ(check(4), 1);
  expect_line("FAILED: gpu_two_test (tests.log) was stopped after ");
}

TEST_F(GpuCheck, WhatASanitizerFindsFails) {
  program("bin/compute-sanitizer", R"(
case "$*" in
  *racecheck*) echo '========= RACECHECK SUMMARY: 1 hazard displayed'; exit 99 ;;
  *synccheck*) exit 124 ;;
  *initcheck*) exit 1 ;;
esac)");
  EXPECT_EQ(check(), 1);
  expect_line("FAILED: racecheck of gpu_memory_ops_test found something (sanitizer.log)\n");
  expect_line("FAILED: initcheck of gpu_memory_ops_test (sanitizer.log) ended with 1\n");
  expect_line("sanitizer synccheck of gpu_memory_ops_test did not end in its time\n");
  expect_line("sanitizer 1 of 4 checks passed on small sizes: ");
  EXPECT_NE(read(folder_ / "out/sanitizer.log").find("1 hazard displayed"), std::string::npos);
}

TEST_F(GpuCheck, ASanitizerThatCannotWorkIsLeftOut) {
  program("bin/compute-sanitizer", "echo '========= Error: Device not supported'; exit 1");
  EXPECT_EQ(check(), 0) << table_;
  expect_line("sanitizer compute-sanitizer does not support this device\n");
}

TEST_F(GpuCheck, ABuildThatFailsEndsIt) {
  program("bin/cmake", "echo 'error: no such header'; exit 2");
  EXPECT_EQ(check(), 1);
  expect_line("FAILED: the build (build.log) ended with 2\n");
  EXPECT_EQ(table_.find("tests "), std::string::npos) << table_;
}

TEST_F(GpuCheck, WithoutAGpuNothingIsMeasured) {
  program("bin/nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9");
  EXPECT_EQ(check(), 50);
  expect_line("GPU       none: nvidia-smi finds no NVIDIA GPU\n");
  expect_line("tests     3 passed, 0 failed, 1 skipped\n");
  expect_line("Nothing was measured: there is no GPU here.\n");
  EXPECT_EQ(table_.find("AdamW"), std::string::npos) << table_;
}

}  // namespace
