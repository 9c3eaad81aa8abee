// The qstep executable as a child process that tests start, signal and wait for.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace qstep::trainer::testing {

using Words = std::vector<std::string>;

// qstep with these words; standard output and error go to `log`.
class Process {
 public:
  Process(const Words& words, const std::string& log) {
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ::dup2(out, 1);
    ::dup2(out, 2);
    std::vector<char*> argv{const_cast<char*>(QSTEP_EXECUTABLE)};
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execv(QSTEP_EXECUTABLE, argv.data());
    ::_exit(127);
  }
  void signal(int number) const {
    if (status_ == kRunning) ::kill(pid_, number);
  }
  // Waits for the condition, or for the end of the process.
  template <class F>
  void wait_for(F&& condition) {
    int status = 0;
    while (status_ == kRunning && !condition()) {
      if (::waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  // Its exit code, or minus the signal that ended it.
  int wait() {
    if (status_ == kRunning) ::waitpid(pid_, &status_, 0);
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
  }

 private:
  static constexpr int kRunning = -1;
  pid_t pid_;
  int status_ = kRunning;
};

}  // namespace qstep::trainer::testing
