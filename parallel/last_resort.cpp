#include "parallel/last_resort.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <future>
#include <thread>

namespace qstep::parallel {

void write_stderr(std::string_view text) {
  while (!text.empty()) {
    pollfd polled{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
    if (::poll(&polled, 1, 1000) <= 0) return;
    // A pipe that polls as writable takes this much without blocking.
    const ssize_t n = ::write(STDERR_FILENO, text.data(), std::min<size_t>(text.size(), PIPE_BUF));
    if (n <= 0) return;
    text.remove_prefix(static_cast<size_t>(n));
  }
}

void end_process(ops::ExitCode code, std::function<void()> last_words) {
  std::packaged_task<void()> task(std::move(last_words));
  const std::future<void> done = task.get_future();
  std::thread(std::move(task)).detach();
  done.wait_for(std::chrono::seconds(5));
  ::_exit(static_cast<int>(code));
}

}  // namespace qstep::parallel
