#include "tests/parallel/rank_processes.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

namespace qstep::test {

using ops::Error;
using ops::ExitCode;
using parallel::SideChannel;
using parallel::Watchdog;

namespace {

constexpr auto kDeadline = std::chrono::seconds(40);
constexpr auto kPause = std::chrono::milliseconds(1);

struct Text {
  size_t size;
  std::array<char, 2048> bytes;
};

void store(Text& to, std::string_view text) {
  to.size = text.copy(to.bytes.data(), to.bytes.size());
}

std::string load(const Text& from) { return {from.bytes.data(), from.size}; }

}  // namespace

// Zeros are the start of it all.
struct SharedState {
  std::array<std::atomic<int>, 2> exchanged;
  std::array<std::array<Text, kMaxRanks>, 2> texts;
  std::array<std::atomic<int>, 64> arrived;  // by sequence
  std::array<std::atomic<bool>, 8> flags;
  std::array<std::atomic<bool>, kMaxRanks> last_words;
  std::array<Text, kMaxRanks> what;
  std::array<std::atomic<int>, kMaxRanks> cause;
  std::array<std::atomic<bool>, kMaxRanks> reports;
};

void RankContext::collective(uint64_t sequence) {
  const parallel::CollectiveRecord record{.group = "world",
                                          .sequence = sequence,
                                          .operation = "reduce_scatter",
                                          .bytes = 4096,
                                          .dtype = ops::Dtype::kBf16};
  watch_->entered(record);
  std::atomic<int>& arrived = shared_.arrived.at(sequence);
  ++arrived;
  while (arrived < size_) {
    if (const auto failure = watch_->failure()) throw Error(failure->code, failure->text);
    std::this_thread::sleep_for(kPause);
  }
  watch_->left(record);
}

void RankContext::mark(int flag) { shared_.flags.at(static_cast<size_t>(flag)) = true; }

parallel::WatchdogOptions fast_options() {
  parallel::WatchdogOptions options;
  options.limits = {.start_s = 20,
                    .first_step_s = 1,
                    .step_s = 1,
                    .step_factor = 1,
                    .evaluation_s = 1,
                    .save_s = 1,
                    .longest_factor = 1,
                    .end_s = 1};
  options.connect_s = 20;
  options.beat_s = 0.05;
  options.answer_s = 0.5;
  options.leave_s = 1;
  return options;
}

parallel::WatchdogOptions patient_options() {
  parallel::WatchdogOptions options = fast_options();
  options.limits.first_step_s = options.limits.step_s = options.limits.end_s = 60;
  return options;
}

RankProcesses::RankProcesses(int size, const parallel::WatchdogOptions& options, const Body& body)
    : size_(size) {
  void* memory = ::mmap(nullptr, sizeof(SharedState), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ops::check(memory != MAP_FAILED, "mmap");
  shared_ = static_cast<SharedState*>(memory);
  for (int r = 0; r < size; ++r) {
    Process process{.pid = 0, .stderr_fd = ::memfd_create("stderr", 0), .reaped = false};
    process.pid = ::fork();
    if (process.pid == 0) {
      ::dup2(process.stderr_fd, STDERR_FILENO);
      run_rank(r, options, body);
    }
    ranks_.push_back(process);
    ops::check(process.pid > 0, "fork");
  }
}

RankProcesses::~RankProcesses() {
  for (Process& process : ranks_) {
    if (process.pid > 0 && !process.reaped) {
      ::kill(process.pid, SIGKILL);
      ::waitpid(process.pid, nullptr, 0);
    }
    ::close(process.stderr_fd);
  }
  ::munmap(shared_, sizeof(SharedState));
}

void RankProcesses::run_rank(int rank, const parallel::WatchdogOptions& options, const Body& body) {
  const auto mine = static_cast<size_t>(rank);
  int code = 0;
  size_t round = 0;
  const parallel::Exchange exchange = [&](std::string_view text) {
    auto& texts = shared_->texts.at(round);
    auto& exchanged = shared_->exchanged.at(round++);
    store(texts[mine], text);
    ++exchanged;
    while (exchanged < size_) std::this_thread::sleep_for(kPause);
    std::vector<std::string> all;
    for (size_t r = 0; r < static_cast<size_t>(size_); ++r) all.push_back(load(texts[r]));
    return all;
  };
  RankContext context(*shared_, rank, size_);
  try {
    context.watch_ = std::make_unique<Watchdog>(
        SideChannel(rank, size_, exchange, options.connect_s), options,
        [&](const parallel::Verdict&) { shared_->last_words[mine] = true; });
    body(context);
    context.watch_->goodbye();
  } catch (const Error& error) {
    code = static_cast<int>(error.code());
    store(shared_->what[mine], error.what());
    if (context.watch_) context.watch_->farewell(error.code(), error.what());
  } catch (const std::exception& error) {  // must not get to the test, of which this is a copy
    store(shared_->what[mine], error.what());
    ::_exit(1);
  }
  if (context.watch_) {
    shared_->reports[mine] = context.watch_->i_report();
    if (const auto verdict = context.watch_->verdict()) {
      shared_->cause[mine] = static_cast<int>(verdict->cause);
    }
  }
  context.watch_.reset();
  ::_exit(code);
}

void RankProcesses::signal(int rank, int number) const { ::kill(pid(rank), number); }

bool RankProcesses::wait_until_stopped(int rank) const {
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (std::chrono::steady_clock::now() < deadline) {
    int status = 0;
    if (::waitpid(pid(rank), &status, WUNTRACED | WNOHANG) > 0) return WIFSTOPPED(status);
    std::this_thread::sleep_for(kPause);
  }
  return false;
}

RankEnd RankProcesses::wait(int rank) {
  Process& process = ranks_[static_cast<size_t>(rank)];
  const auto mine = static_cast<size_t>(rank);
  RankEnd end;
  int status = 0;
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (!end.ended && std::chrono::steady_clock::now() < deadline) {
    end.ended = ::waitpid(process.pid, &status, WNOHANG) == process.pid;
    if (!end.ended) std::this_thread::sleep_for(kPause);
  }
  process.reaped = end.ended;
  if (end.ended) end.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  end.what = load(shared_->what[mine]);
  end.cause = shared_->cause[mine];
  end.reports = shared_->reports[mine];
  std::array<char, 4096> piece;
  for (ssize_t n = 0, at = 0; (n = ::pread(process.stderr_fd, piece.data(), piece.size(), at)) > 0;
       at += n) {
    end.stderr_text.append(piece.data(), static_cast<size_t>(n));
  }
  return end;
}

bool RankProcesses::marked(int flag) const { return shared_->flags.at(static_cast<size_t>(flag)); }

bool RankProcesses::had_last_words(int rank) const {
  return shared_->last_words.at(static_cast<size_t>(rank));
}

std::string RankProcesses::name(int rank) const {
  return parallel::describe(rank, {.host = parallel::host_name(), .pid = pid(rank)});
}

}  // namespace qstep::test
