// TCP sockets: close-on-exec, non-blocking, and without signals.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qstep::parallel {

class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket();
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int fd() const { return fd_; }  // -1: none
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

enum class Reach : uint8_t { kLoopback, kNetwork };

// On a port that the system picks. Throws Error (internal) when the system refuses.
Socket listen_on(Reach reach);
uint16_t port_of(const Socket& listener);
// The next connection, none when nobody waits.
Socket accept_from(const Socket& listener);
// None when nobody answers at this numeric address within `timeout_s`.
Socket connect_to(const std::string& address, uint16_t port, double timeout_s);

struct Received {
  std::string bytes;  // all there was
  bool closed = false;
  std::string how;  // when closed: "connection closed", or the system's error
};
Received receive_all(const Socket& socket);

// How many bytes the system took. All of them when the connection is broken: receive_all() tells.
size_t send_some(const Socket& socket, std::string_view bytes);

// Whether one of `events` (POLLIN, POLLOUT) came within `timeout_s`.
bool poll_one(const Socket& socket, short events, double timeout_s);

// Numeric addresses at which other hosts may reach this one: IPv4 first; no loopback, no
// link-local.
std::vector<std::string> addresses_of_this_host();
// Processes with equal texts reach each other over the loopback address.
std::string loopback_domain();
std::string host_name();

}  // namespace qstep::parallel
