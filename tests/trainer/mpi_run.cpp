#include "tests/trainer/mpi_run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace qstep::trainer::testing {

namespace fs = std::filesystem;

namespace {

std::string text_in(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int number_in(const std::string& path) {
  const std::string text = text_in(path);
  return text.empty() ? 0 : std::stoi(text);
}

// A zombie is gone: its parent need not have looked.
bool is_gone(pid_t pid) {
  const std::string stat = text_in(fmt::format("/proc/{}/stat", pid));
  const size_t name_end = stat.rfind(')');
  return name_end == std::string::npos || stat.substr(name_end, 3) == ") Z";
}

Words command_of(const std::string& notes, const std::vector<RankStart>& ranks, EndedBy ended_by) {
  // More ranks than cores; no binding: tests run side by side.
  Words command{QSTEP_MPIEXEC, "--oversubscribe", "--bind-to", "none"};
  const size_t together = ended_by == EndedBy::kThemselves ? ranks.size() : 0;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto& [words, folder] = ranks[rank];
    if (rank > 0) command.push_back(":");
    command.insert(command.end(), {"-n", "1"});
    if (!folder.empty()) command.insert(command.end(), {"-wdir", folder});
    command.insert(command.end(),
                   {QSTEP_RANK_PARENT, notes, std::to_string(together), QSTEP_EXECUTABLE});
    command.insert(command.end(), words.begin(), words.end());
  }
  return command;
}

[[noreturn]] void become(const Words& command, const std::string& log) {
  // As root, which people are in containers, Open MPI wants to be told twice.
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  ::setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  // For AddressSanitizer, as in tests/CMakeLists.txt: Open MPI leaks in plugins that it unloads.
  ::setenv("ASAN_OPTIONS", "allocator_may_return_null=1:detect_leaks=0", 1);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

}  // namespace

MpiRun::MpiRun(const std::string& notes, std::vector<RankStart> ranks, EndedBy ended_by)
    : notes_(notes), size_(static_cast<int>(ranks.size())) {
  fs::remove_all(notes);
  fs::create_directories(notes);
  const Words command = command_of(notes, ranks, ended_by);
  mpirun_ = ::fork();
  if (mpirun_ == 0) become(command, notes + "/mpirun");
}

MpiRun::~MpiRun() {
  for (int rank = 0; rank < size_; ++rank) {
    const int pid = number_in(fmt::format("{}/pid.{}", notes_, rank));
    if (pid > 0 && !is_gone(pid)) ::kill(pid, SIGKILL);
  }
  if (code_) return;
  ::kill(mpirun_, SIGKILL);
  ::waitpid(mpirun_, nullptr, 0);
}

bool MpiRun::ended() {
  int status = 0;
  if (code_ || ::waitpid(mpirun_, &status, WNOHANG) != mpirun_) return code_.has_value();
  code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

pid_t MpiRun::pid(int rank) {
  const std::string path = fmt::format("{}/pid.{}", notes_, rank);
  wait_for([&] { return fs::exists(path); });
  return number_in(path);
}

void MpiRun::signal(int rank, int number) {
  const pid_t target = pid(rank);
  if (target > 0 && !is_gone(target)) ::kill(target, number);
}

std::optional<int> MpiRun::wait() {
  wait_for([&] { return ended(); });
  return code_;
}

std::optional<int> MpiRun::wait_code(int rank) {
  const std::string path = fmt::format("{}/code.{}", notes_, rank);
  if (!wait_for([&] { return fs::exists(path); })) return std::nullopt;
  return number_in(path);
}

std::vector<int> MpiRun::wait_codes() {
  std::vector<int> codes;
  for (int rank = 0; rank < size_; ++rank) codes.push_back(wait_code(rank).value_or(-1));
  return codes;
}

std::string MpiRun::note(const std::string& kind, int rank) const {
  return text_in(fmt::format("{}/{}.{}", notes_, kind, rank));
}

std::vector<std::string> MpiRun::error_lines() const {
  std::vector<std::string> found;
  for (int rank = 0; rank < size_; ++rank) {
    std::istringstream lines(err(rank));
    for (std::string line; std::getline(lines, line);) {
      if (line.find("error: ") != std::string::npos) found.push_back(line);
    }
  }
  return found;
}

std::string MpiRun::log() const {
  std::string all = "mpirun: " + text_in(notes_ + "/mpirun") + "\n";
  for (int rank = 0; rank < size_; ++rank) {
    all += fmt::format("rank {}, stdout:\n{}stderr:\n{}", rank, out(rank), err(rank));
  }
  return all;
}

bool MpiRun::left_nothing() {
  if (!wait()) return false;
  const std::string job = note("job", 0);
  if (job.empty()) return false;
  const std::string segment = fmt::format(".{:08x}.", std::stoul(job));
  for (const auto& entry : fs::directory_iterator("/dev/shm")) {
    if (entry.path().filename().string().find(segment) != std::string::npos) return false;
  }
  const auto deadline = Clock::now() + kDeadline;
  for (int rank = 0; rank < size_; ++rank) {
    const int pid = number_in(fmt::format("{}/pid.{}", notes_, rank));
    while (pid > 0 && !is_gone(pid)) {
      if (Clock::now() > deadline) return false;
      std::this_thread::sleep_for(kPause);
    }
  }
  return true;
}

}  // namespace qstep::trainer::testing
